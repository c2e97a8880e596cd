//! What was earned, and by which jobs.

use super::{minute, short_date, sums};
use crate::status::chart::bars;
use crate::status::html::{esc, number, span};
use crate::status::{Day, Ended};

pub(in crate::status) fn earnings(days: &[Day]) -> String {
    let (Some(first), Some(last)) = (days.first(), days.last()) else {
        return "<p class=\"empty\">Nothing has been earned yet.</p>".to_owned();
    };
    let (amount, kwh) = sums(days);
    let jobs: u64 = days.iter().map(|day| day.jobs).sum();
    let best = days.iter().map(|day| day.amount).fold(0.0, f64::max);
    let count = days.len();
    let label = format!(
        "Earnings of the last {count} days: {} in all, {} today",
        number(amount, 2),
        number(last.amount, 2)
    );
    let sum = |name: &str, value: &str| format!("<div><dt>{name}</dt><dd>{value}</dd></div>");
    format!(
        "<div class=\"earn\"><dl class=\"sums\">{}{}{}{}</dl>{}\
         <div class=\"ends\" aria-hidden=\"true\"><span>{}</span><span>today</span></div>\
         <details><summary>As a table</summary>{}</details></div>",
        sum(&format!("Last {count} days"), &number(amount, 2)),
        sum("Best day", &number(best, 2)),
        sum("Jobs", &number(jobs as f64, 0)),
        sum("Energy", &format!("{} kWh", number(kwh, 3))),
        bars(days, &label),
        esc(&short_date(&first.date)),
        table(days),
    )
}

/// The days on which there was anything, the newest first.
fn table(days: &[Day]) -> String {
    let row = |day: &Day| {
        format!(
            "<tr><td>{}</td><td class=\"right\">{}</td><td class=\"right\">{}</td>\
             <td class=\"right\">{}</td></tr>",
            esc(&day.date),
            day.jobs,
            number(day.amount, 2),
            number(day.kwh, 3),
        )
    };
    let rows: String = days.iter().rev().filter(|day| day.jobs > 0).map(row).collect();
    format!(
        "<table><thead><tr><th scope=\"col\">Day</th><th scope=\"col\" class=\"right\">Jobs</th>\
         <th scope=\"col\" class=\"right\">Earned</th><th scope=\"col\" class=\"right\">kWh</th></tr>\
         </thead><tbody>{rows}</tbody></table>"
    )
}

pub(in crate::status) fn history(recent: &[Ended]) -> String {
    if recent.is_empty() {
        return "<p class=\"empty\">No job has ended yet.</p>".to_owned();
    }
    let rows: String = recent.iter().map(ended).collect();
    format!(
        "<table id=\"history-table\"><thead><tr><th scope=\"col\">Ended, UTC</th>\
         <th scope=\"col\">Job</th><th scope=\"col\">Kind</th><th scope=\"col\">Outcome</th>\
         <th scope=\"col\" class=\"right\">Took</th><th scope=\"col\" class=\"right\">Earned</th>\
         <th scope=\"col\" class=\"right\">Wh</th></tr></thead><tbody>{rows}</tbody></table>"
    )
}

fn ended(job: &Ended) -> String {
    let told = |value: Option<f64>, digits| match value {
        Some(value) if value > 0.0 => number(value, digits),
        Some(_) | None => "–".to_owned(),
    };
    let attempt =
        if job.attempt > 1 { format!(" · attempt {}", job.attempt) } else { String::new() };
    let status = esc(&job.status);
    format!(
        "<tr><td class=\"when\">{}</td><td class=\"job\"><code>{}</code>{attempt}</td>\
         <td class=\"kind\">{}</td><td class=\"status\"><span class=\"chip {status}\">{status}</span></td>\
         <td class=\"right took\">{}</td><td class=\"right amount\">{}</td>\
         <td class=\"right kwh\">{}</td></tr>",
        minute(&job.at),
        esc(&job.id),
        esc(&job.kind),
        job.seconds.map_or_else(|| "–".into(), took),
        told(job.amount, 4),
        told(job.kwh.map(|kwh| kwh * 1000.0), 2),
    )
}

fn took(seconds: f64) -> String {
    if seconds < 60.0 { format!("{} s", number(seconds, 1)) } else { span(seconds) }
}
