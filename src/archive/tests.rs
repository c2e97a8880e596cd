//! Archives as strangers send them: what is good in them is laid out, and no byte anywhere else.

use std::fs;
use std::io::Seek as _;
use std::os::unix::fs::PermissionsExt as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, Header};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;

/// What became of an archive: the paths below its folder, or why there are none.
fn unpacked(bytes: &[u8], kind: Archive) -> Result<Vec<String>, String> {
    unpacked_into(&tempfile::tempdir().unwrap(), bytes, kind)
}

fn unpacked_into(
    dir: &tempfile::TempDir,
    bytes: &[u8],
    kind: Archive,
) -> Result<Vec<String>, String> {
    let inner = dir.path().join("in");
    fs::create_dir_all(&inner).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    let mut room = Room { bytes: 1 << 40, entries: 100 };
    let done = unpack(file, kind, &Folder::open(&inner).unwrap(), &mut room, &mut |_| {});
    // Whatever it was, nothing came to stand beside the folder.
    let beside: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().collect();
    assert_eq!(beside.len(), 1, "{beside:?}");
    match done {
        Ok(()) => {
            let (found, _) = Folder::open(&inner).unwrap().list(1000).unwrap();
            Ok(found.iter().map(|found| found.path.to_string_lossy().into_owned()).collect())
        }
        Err(Error::Theirs(error)) => Err(error),
        Err(Error::Ours(error)) => panic!("{error}"),
    }
}

fn zip_of(files: &[(&str, &[u8], u32)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(io::Cursor::new(vec![]));
    for (name, content, mode) in files {
        let options = SimpleFileOptions::default().unix_permissions(*mode);
        zip.start_file(*name, options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// An entry of a tar, whatever its name: the crate's own builder refuses bad ones.
fn entry(tar: &mut Builder<Vec<u8>>, name: &str, kind: EntryType, to: &str, content: &[u8]) {
    let mut header = Header::new_gnu();
    let fields = header.as_old_mut();
    fields.name[..name.len()].copy_from_slice(name.as_bytes());
    fields.linkname[..to.len()].copy_from_slice(to.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o4755);
    header.set_size(content.len() as u64);
    header.set_cksum();
    tar.append(&header, content).unwrap();
}

fn tar_of(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut tar = Builder::new(vec![]);
    for (name, kind, to) in entries {
        let content: &[u8] = if *kind == EntryType::Regular { b"x" } else { b"" };
        entry(&mut tar, name, *kind, to, content);
    }
    tar.into_inner().unwrap()
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut gz = GzEncoder::new(vec![], Compression::best());
    gz.write_all(bytes).unwrap();
    gz.finish().unwrap()
}

#[test]
fn what_is_good_is_laid_out_with_no_more_rights_than_to_run() {
    let dir = tempfile::tempdir().unwrap();
    let zip = zip_of(&[("a/b.txt", b"hello", 0o644), ("run.sh", b"#!/bin/sh", 0o6777)]);
    assert_eq!(
        unpacked_into(&dir, &zip, Archive::Zip),
        Ok(vec!["a/b.txt".into(), "run.sh".into()])
    );
    let mode = |path| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("in/a/b.txt"), mode("in/run.sh")), (0o644, 0o755));
    let all = [
        ("d/", EntryType::Directory, ""),
        ("d/f", EntryType::Regular, ""),
        ("d/g", EntryType::Link, "d/f"),
        ("l", EntryType::Symlink, "d/f"),
        ("d/m", EntryType::Symlink, "../l"),
    ];
    let wanted = Ok(["d/f", "d/g", "d/m", "l"].map(str::to_owned).to_vec());
    assert_eq!(unpacked(&tar_of(&all), Archive::Tar), wanted);
    assert_eq!(unpacked(&gz(&tar_of(&all)), Archive::TarGz), wanted);
    assert_eq!(unpacked(&zip_of(&[]), Archive::Zip), Ok(vec![]));
}

#[test]
fn nothing_leads_out_of_the_folder() {
    for path in ["../evil", "a/../../evil", "/tmp/evil", ".."] {
        let zip = zip_of(&[(path, b"x", 0o644)]);
        let told = unpacked(&zip, Archive::Zip);
        assert!(told.as_ref().is_err_and(|told| told.contains("refused")), "{path}: {told:?}");
        let tar = tar_of(&[(path, EntryType::Regular, "")]);
        let told = unpacked(&tar, Archive::Tar);
        assert!(told.as_ref().is_err_and(|told| told.contains("refused")), "{path}: {told:?}");
    }
    for (link, to) in [("l", "/etc"), ("l", "../.."), ("a/l", "../.."), ("l", "a/../../x")] {
        for kind in [EntryType::Symlink, EntryType::Link] {
            let told = unpacked(&tar_of(&[(link, kind, to)]), Archive::Tar);
            assert!(told.is_err(), "{link} to {to}");
        }
    }
}

#[test]
fn a_file_is_not_written_through_a_link_of_the_same_archive() {
    // The link is good by itself.
    let tar = tar_of(&[
        ("d/", EntryType::Directory, ""),
        ("l", EntryType::Symlink, "d"),
        ("l/f", EntryType::Regular, ""),
    ]);
    let told = unpacked(&tar, Archive::Tar).unwrap_err();
    assert_eq!(told, "l/f in it is refused: its path leads through a link or a file");
    // A file in the place of a link takes that place, and leaves alone what the link leads to.
    let dir = tempfile::tempdir().unwrap();
    let tar = tar_of(&[
        ("a", EntryType::Regular, ""),
        ("l", EntryType::Symlink, "a"),
        ("l", EntryType::Regular, ""),
    ]);
    unpacked_into(&dir, &tar, Archive::Tar).unwrap();
    assert!(fs::symlink_metadata(dir.path().join("in/l")).unwrap().is_file());
}

#[test]
fn a_device_a_pipe_and_too_many_files_are_refused() {
    for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo] {
        let told = unpacked(&tar_of(&[("dev", kind, "")]), Archive::Tar).unwrap_err();
        assert_eq!(told, "dev in it is refused: it is a device, or what is no file");
    }
    let many: Vec<String> = (0..101).map(|n| n.to_string()).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), EntryType::Regular, "")).collect();
    assert_eq!(unpacked(&tar_of(&many), Archive::Tar), Err("it has too many files".into()));
}

#[test]
fn a_bomb_goes_off_at_its_bound() {
    let dir = tempfile::tempdir().unwrap();
    // A tar whose one file says that it has 10 GiB, of zeros: 10 MiB when packed, a few kB as a sparse
    // file or packed twice.
    let mut header = Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(10 << 30);
    header.set_cksum();
    let mut gz = GzEncoder::new(vec![], Compression::best());
    gz.write_all(header.as_bytes()).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..SMALL / (1 << 20) + 100 {
        gz.write_all(&zeros).unwrap();
    }
    let bomb = gz.finish().unwrap();
    let most = bomb.len() as u64 * RATIO + SMALL;
    let told = unpacked_into(&dir, &bomb, Archive::TarGz).unwrap_err();
    // Either the bound of what comes out, or the end of a stream that is not read any further.
    assert!(told.contains("it comes to more than") || told.contains("zeros"), "{told}");
    let laid_out = fs::metadata(dir.path().join("in/zeros")).unwrap().len();
    assert!(laid_out <= most + SMALL, "{laid_out} of {}", bomb.len());
}

#[test]
fn what_is_no_archive_is_refused() {
    for kind in Archive::ALL {
        for junk in [&b"junk"[..], &[0xff; 2000]] {
            let told = unpacked(junk, kind);
            assert!(told.is_err() || told == Ok(vec![]), "{kind:?}: {told:?}");
        }
    }
    let good = zip_of(&[("a", &[7; 1000], 0o644)]);
    for cut in [10, 100, good.len() - 1] {
        let told = unpacked(&good[..cut], Archive::Zip).unwrap_err();
        assert!(told.starts_with("it cannot be read: invalid Zip archive: "), "{cut}: {told}");
    }
    let tar = gz(&tar_of(&[("a", EntryType::Regular, "")]));
    let told = unpacked(&tar[..tar.len() / 2], Archive::TarGz).unwrap_err();
    assert_eq!(told, "it cannot be read: incomplete deflate stream");
}

/// A tar whose headers have the checksums that belong to them, as a stranger would make it.
fn summed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(512).filter(|block| block[257..].starts_with(b"ustar")) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    bytes
}

/// Whatever an archive was, what it left is files and folders, and links to such, within what it may.
fn assert_harmless(folder: &Path, top: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let (path, metadata) = (entry.path(), entry.metadata().unwrap());
        let kind = metadata.file_type();
        if kind.is_symlink() {
            let target = fs::canonicalize(&path);
            assert!(target.is_err() || target.is_ok_and(|to| to.starts_with(top)), "{path:?}");
            continue;
        }
        assert!(kind.is_dir() || kind.is_file(), "{path:?}");
        assert!(matches!(metadata.permissions().mode() & 0o7777, 0o644 | 0o755), "{path:?}");
        if kind.is_dir() {
            assert_harmless(&path, top);
        }
    }
}

fn fuzz(target: &str, words: &[&str], kind: Archive, form: fn(&[u8]) -> Vec<u8>) {
    crate::fuzz::run(target, words, |bytes| {
        let dir = tempfile::tempdir().unwrap();
        let told = unpacked_into(&dir, &form(bytes), kind);
        let top = fs::canonicalize(dir.path()).unwrap().join("in");
        assert_harmless(&top, &top);
        told.map_or_else(|error| error, |files| format!("{} files", files.len().min(3)))
    });
}

#[test]
fn fuzz_zip() {
    let words = ["PK\x01\x02", "PK\x03\x04", "PK\x05\x06", "PK\x06\x06", "../", "/", "a", "\0"];
    fuzz("zip", &words, Archive::Zip, <[u8]>::to_vec);
}

#[test]
fn fuzz_tar() {
    let words =
        ["../", "/", "a", "\0", "0000777\0", "77777777777\0", "17 path=../x\n", "11 size=9\n"];
    fuzz("tar", &words, Archive::Tar, summed);
}

#[test]
fn fuzz_tgz() {
    // What is no gzip file is packed, so that its content is mutated too.
    let form = |bytes: &[u8]| match bytes {
        [0x1f, 0x8b, ..] => bytes.to_vec(),
        _ => gz(&summed(bytes)),
    };
    fuzz("tgz", &["\x1f", "../", "\0"], Archive::TarGz, form);
}
