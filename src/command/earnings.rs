//! `worker earnings`: what the ledger adds up to.

use std::io::{self, Write as _};

use clap::ArgMatches;
use serde_json::{Value, json};

use super::look_into;
use super::table::{Side, table};
use crate::config::earnings_from_args;
use crate::exit::Exit;
use crate::store::{By, Sum, earnings, read_ledger};
use crate::{logging, text};

pub(crate) fn run(args: &ArgMatches) -> anyhow::Result<Exit> {
    let (state_dir, electricity, log) = earnings_from_args(args)?;
    logging::start(log);
    look_into(&state_dir)?;
    let by = match args.get_one::<String>("by").map(String::as_str) {
        Some("kind") => By::Kind,
        Some("gpu") => By::Gpu,
        _ => By::Day,
    };
    let (sums, all) = earnings(&read_ledger(&state_dir)?, by);
    let report = Report { by, rows: sums.into_iter().collect(), all, electricity };
    let told = if args.get_flag("json") {
        format!("{}\n", text::visible_json(&format!("{:#}", report.json())))
    } else if args.get_flag("csv") {
        report.csv()?
    } else if report.rows.is_empty() {
        format!("no job has ended here yet: {} has no ledger\n", state_dir.display())
    } else {
        report.table()
    };
    io::stdout().write_all(told.as_bytes())?;
    Ok(Exit::Stopped)
}

struct Report {
    by: By,
    rows: Vec<(String, Sum)>,
    all: Sum,
    /// What a kilowatt-hour costs, if that was said.
    electricity: Option<f64>,
}

impl Report {
    fn what(&self) -> &'static str {
        match self.by {
            By::Day => "day",
            By::Kind => "kind",
            By::Gpu => "gpu",
        }
    }

    /// What the electricity cost, and what is left; of what was not measured neither is known.
    fn margin(&self, sum: &Sum) -> Option<(f64, f64)> {
        let price = self.electricity.filter(|_| sum.metered_seconds > 0.0)?;
        let cost = sum.kwh * price;
        Some((cost, sum.amount - cost))
    }

    fn table(&self) -> String {
        let what = self.what().to_uppercase();
        let mut columns = vec![(what.as_str(), Side::Left)];
        let figures = ["COMPLETED", "UNPAID", "HOURS", "KWH", "EARNED", "ELECTRICITY", "MARGIN"];
        let shown = if self.electricity.is_some() { figures.len() } else { figures.len() - 2 };
        columns.extend(figures[..shown].iter().map(|name| (*name, Side::Right)));
        let mut rows: Vec<_> = self.rows.iter().map(|(name, sum)| self.row(name, sum)).collect();
        rows.push(self.row("total", &self.all));
        table(&columns, &rows) + &self.note()
    }

    fn row(&self, name: &str, sum: &Sum) -> Vec<String> {
        let is_metered = sum.metered_seconds > 0.0;
        let mut row = vec![
            name.to_owned(),
            count(sum.completed),
            count(sum.unpaid),
            format!("{:.2}", sum.seconds / 3600.0),
            if is_metered { format!("{:.3}", sum.kwh) } else { "-".into() },
            format!("{:.2}", sum.amount),
        ];
        if self.electricity.is_some() {
            let (cost, margin) = self.margin(sum).unzip();
            let money = |value: Option<f64>| {
                value.map_or_else(|| "-".into(), |value| format!("{value:.2}"))
            };
            row.extend([money(cost), money(margin)]);
        }
        row
    }

    /// What must be known to read the figures.
    fn note(&self) -> String {
        let Sum { seconds, metered_seconds, .. } = self.all;
        if seconds <= 0.0 || metered_seconds >= seconds {
            return String::new();
        }
        let share = 100.0 * metered_seconds / seconds;
        format!(
            "\nenergy was measured for {share:.0} % of the time; what the rest used is not known\n"
        )
    }

    fn json(&self) -> Value {
        let fields = |name: Option<&str>, sum: &Sum| {
            let mut fields = json!(sum);
            if let Some(name) = name {
                fields["name"] = name.into();
            }
            if let Some((cost, margin)) = self.margin(sum) {
                fields["electricity"] = json!(cost);
                fields["margin"] = json!(margin);
            }
            fields
        };
        let rows: Vec<_> = self.rows.iter().map(|(name, sum)| fields(Some(name), sum)).collect();
        let mut all = json!({"by": self.what(), "rows": rows, "total": fields(None, &self.all)});
        if let Some(price) = self.electricity {
            all["electricityPrice"] = json!(price);
        }
        all
    }

    fn csv(&self) -> anyhow::Result<String> {
        let mut csv = csv::Writer::from_writer(vec![]);
        let head = [self.what(), "completed", "unpaid", "seconds", "kwh", "metered_seconds"];
        csv.write_record(head.into_iter().chain(["amount", "electricity", "margin"]))?;
        for (name, sum) in &self.rows {
            let Sum { completed, unpaid, seconds, kwh, metered_seconds, amount } = sum;
            let (cost, margin) = self.margin(sum).unzip();
            let figures =
                [completed, unpaid, seconds, kwh, metered_seconds, amount].map(ToString::to_string);
            let money =
                [cost, margin].map(|value| value.map_or_else(String::new, |v| v.to_string()));
            csv.write_record([plain(name)].into_iter().chain(figures).chain(money))?;
        }
        Ok(String::from_utf8(csv.into_inner()?)?)
    }
}

/// A share of a job only where GPUs shared one.
fn count(jobs: f64) -> String {
    if jobs.fract() == 0.0 { format!("{jobs:.0}") } else { format!("{jobs:.2}") }
}

/// A backend names the kinds of its jobs: a spreadsheet must not take one for a formula.
fn plain(name: &str) -> String {
    let name = text::shown(name);
    if name.starts_with(['=', '+', '-', '@']) { format!("'{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(electricity: Option<f64>) -> Report {
        let paid = || Sum {
            completed: 1.5,
            seconds: 7200.0,
            kwh: 0.5,
            metered_seconds: 7200.0,
            amount: 5.0,
            ..Sum::default()
        };
        let unpaid = Sum { unpaid: 1.0, seconds: 7200.0, ..Sum::default() };
        let all = Sum { unpaid: 1.0, seconds: 14400.0, ..paid() };
        let rows = vec![("compute".into(), paid()), ("=cmd()".into(), unpaid)];
        Report { by: By::Kind, rows, all, electricity }
    }

    #[test]
    fn the_table_tells_what_was_earned_and_what_is_not_known() {
        assert_eq!(
            report(None).table(),
            "KIND     COMPLETED  UNPAID  HOURS    KWH  EARNED\n\
             compute       1.50       0   2.00  0.500    5.00\n\
             =cmd()           0       1   2.00      -    0.00\n\
             total         1.50       1   4.00  0.500    5.00\n\n\
             energy was measured for 50 % of the time; what the rest used is not known\n"
        );
    }

    #[test]
    fn with_a_price_of_electricity_there_is_a_margin() {
        let table = report(Some(0.3)).table();
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[0].ends_with("EARNED  ELECTRICITY  MARGIN"), "{table}");
        assert!(lines[1].ends_with("  5.00         0.15    4.85"), "{table}");
        assert!(lines[2].ends_with("  0.00            -       -"), "{table}");
    }

    #[test]
    fn a_kind_that_looks_like_a_formula_is_none_in_csv() {
        let csv = report(Some(0.3)).csv().unwrap();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines[1], "compute,1.5,0,7200,0.5,7200,5,0.15,4.85");
        assert_eq!(lines[2], "'=cmd(),0,1,7200,0,0,0,,");
    }

    #[test]
    fn json_has_the_figures_as_they_are() {
        let json = report(Some(0.3)).json();
        assert_eq!(json["rows"][0]["name"], "compute");
        assert_eq!(json["total"]["amount"], 5.0);
        assert_eq!(json["rows"][1].get("margin"), None);
    }
}
