//! The datasets that are in the binary, so that a worker with nothing but itself has one to train on.
//!
//! They are packed CSV, made by `embedded/make.py`. `iris` is Fisher's, as scikit-learn and R have it;
//! UCI's own file differs from his article in rows 35 and 38.

pub(crate) const NAMES: [&str; 2] = ["digits", "iris"];

/// What their licences want to be said.
pub(crate) const ATTRIBUTION: &str = "\
digits: Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak (1998), UCI Machine
Learning Repository, https://doi.org/10.24432/C50P49, CC BY 4.0. Its test part, 1797 images of 8x8.
iris: Iris, R. A. Fisher (1936), UCI Machine Learning Repository, https://doi.org/10.24432/C56C76,
CC BY 4.0. With rows 35 and 38 as in Fisher's article.
Both were taken from scikit-learn and written anew as CSV; the values are theirs.
";

/// A dataset's file by its name.
pub(crate) fn embedded(name: &str) -> Option<&'static [u8]> {
    match name {
        "digits" => Some(include_bytes!("embedded/digits.csv.gz")),
        "iris" => Some(include_bytes!("embedded/iris.csv.gz")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::data::{Input, Table, read};

    fn table(name: &str) -> Table {
        let mut file = embedded(name).unwrap();
        let size = Some(file.len() as u64);
        read(Input { reader: &mut file, size }, None, 1 << 20).unwrap().table
    }

    fn rows_of_each_class(table: &Table) -> Vec<usize> {
        let count = |class| table.labels.iter().filter(|label| **label == class).count();
        (0..).take(table.classes.len()).map(count).collect()
    }

    #[test]
    fn all_that_are_named_are_there_and_take_at_most_60_kb() {
        let sizes = NAMES.map(|name| embedded(name).unwrap().len());
        assert!(sizes.iter().sum::<usize>() <= 60_000, "{sizes:?}");
        assert_eq!(embedded("imagenet"), None);
        assert!(NAMES.iter().all(|name| ATTRIBUTION.contains(&format!("{name}: "))));
    }

    #[test]
    fn digits_are_1797_images_of_ten_digits() {
        let digits = table("digits");
        assert_eq!((digits.rows(), digits.features.len()), (1797, 64));
        assert_eq!(digits.classes, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
        let wanted = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180];
        assert_eq!(rows_of_each_class(&digits), wanted);
        assert_eq!(digits.row(0)[..8], [0.0, 0.0, 5.0, 13.0, 9.0, 1.0, 0.0, 0.0]);
        assert_eq!(
            digits.hash(),
            "deeb0cb931d78f0b9a6b6d26a47c59aac073ea67da013c6046c5bbd8a6779b4b"
        );
    }

    #[test]
    fn iris_are_150_flowers_of_three_kinds() {
        let iris = table("iris");
        assert_eq!((iris.rows(), iris.features.len()), (150, 4));
        assert_eq!(iris.classes, ["setosa", "versicolor", "virginica"]);
        assert_eq!(rows_of_each_class(&iris), [50, 50, 50]);
        assert_eq!(iris.row(34), [4.9, 3.1, 1.5, 0.2], "as in Fisher's article");
        assert_eq!(iris.row(37), [4.9, 3.6, 1.4, 0.1], "as in Fisher's article");
        assert_eq!(iris.hash(), "daa1a5fd844fce035b15bd0de4276443c669d7554d569dacad98aa502d89483d");
    }
}
