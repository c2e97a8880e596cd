//! The parts of the page. Every text that comes from outside goes through `esc`, every number of
//! `status.json` through `data`.

mod gpus;
mod money;

use std::time::SystemTime;

use super::html::{data, esc, number, span};
use super::{Books, Day};
use crate::snapshot::{RunningJob, Snapshot, State};

pub(super) use gpus::gpus;
pub(super) use money::{earnings, history};

/// So much of a job's log is shown.
const LOG_LINES: usize = 12;

pub(super) fn state_word(state: State) -> &'static str {
    match state {
        State::Starting => "Starting",
        State::Online => "Online",
        State::Busy => "Busy",
        State::Paused => "Paused",
        State::Unreachable => "Unreachable",
        State::Stopping => "Stopping",
        State::Stopped => "Stopped",
    }
}

pub(super) fn who(snapshot: &Snapshot) -> String {
    format!(
        "<h1 id=\"name\">{}</h1><p class=\"meta\">works for {} at {} an hour · up {}</p>",
        esc(&snapshot.name),
        esc(&snapshot.backend),
        data("/pricePerHour", snapshot.price_per_hour, &number(snapshot.price_per_hour, 2)),
        span(seconds_between(&snapshot.started, &snapshot.at)),
    )
}

pub(super) fn state(snapshot: &Snapshot) -> String {
    let word = state_word(snapshot.state);
    let until = snapshot.paused_until.as_deref().map(|until| format!(" Until {}.", minute(until)));
    format!(
        "<div class=\"state\"><span class=\"pill {}\">{word}</span><p class=\"why\">{}{}</p></div>",
        word.to_lowercase(),
        esc(&snapshot.why.clone().unwrap_or_else(|| reason(snapshot))),
        until.unwrap_or_default(),
    )
}

/// Why it is in its state, where nobody has said more.
fn reason(snapshot: &Snapshot) -> String {
    let (jobs, slots) = (snapshot.jobs.len(), snapshot.slots);
    match snapshot.state {
        State::Starting => "It has not registered yet.".into(),
        State::Online if jobs == 0 => "Registered, and waiting for jobs.".into(),
        State::Online | State::Busy => format!("{jobs} of {slots} slots in use."),
        State::Paused => "It takes no jobs.".into(),
        State::Unreachable => "The backend does not answer. Jobs go on.".into(),
        State::Stopping if jobs > 0 => "It ends when the running jobs have ended.".into(),
        State::Stopping => "It is about to end.".into(),
        State::Stopped => "It has ended in good order.".into(),
    }
}

pub(super) fn tiles(snapshot: &Snapshot, books: &Books) -> String {
    let nothing = Day::default();
    let today = books.days.last().unwrap_or(&nothing);
    let counts = snapshot.since_start;
    let (amount, kwh) = sums(&books.days);
    let waiting = match snapshot.waiting_results {
        0 => String::new(),
        some => format!(" · {} to deliver", data("/waitingResults", some, &some.to_string())),
    };
    [
        tile("Earned today", &number(today.amount, 2), &plural(today.jobs, "job")),
        tile(
            "Earned in 30 days",
            &number(amount, 2),
            &format!("{} a day", number(amount / 30.0, 2)),
        ),
        tile(
            "Completed since start",
            &data("/sinceStart/completed", counts.completed, &counts.completed.to_string()),
            &format!(
                "{} failed · {} declined{waiting}",
                data("/sinceStart/failed", counts.failed, &counts.failed.to_string()),
                data("/sinceStart/declined", counts.declined, &counts.declined.to_string()),
            ),
        ),
        tile(
            "Energy of jobs, today",
            &format!("{} <small>kWh</small>", number(today.kwh, 3)),
            &format!("{} kWh in 30 days", number(kwh, 3)),
        ),
    ]
    .concat()
}

fn tile(label: &str, figure: &str, more: &str) -> String {
    format!(
        "<div class=\"tile\"><p class=\"label\">{label}</p><p class=\"figure\">{figure}</p>\
         <p class=\"more\">{more}</p></div>"
    )
}

pub(super) fn sums(days: &[Day]) -> (f64, f64) {
    days.iter().fold((0.0, 0.0), |(amount, kwh), day| (amount + day.amount, kwh + day.kwh))
}

pub(super) fn jobs(snapshot: &Snapshot, log_tail: &dyn Fn(&str) -> Vec<String>) -> String {
    if snapshot.jobs.is_empty() {
        return "<div class=\"card empty\">No job runs now.</div>".to_owned();
    }
    let jobs = snapshot.jobs.iter().enumerate();
    jobs.map(|(place, job)| job_card(place, job, &snapshot.at, &log_tail(&job.key))).collect()
}

fn job_card(place: usize, job: &RunningJob, now: &str, log: &[String]) -> String {
    let attempt = match job.attempt {
        1 => String::new(),
        more => format!(
            " · attempt {}",
            data(&format!("/jobs/{place}/attempt"), more, &more.to_string())
        ),
    };
    let energy = job.energy_kwh.map(|kwh| {
        let path = format!("/jobs/{place}/energyKwh");
        format!(" · {} Wh", data(&path, kwh, &number(kwh * 1000.0, 2)))
    });
    let (id, operation) = (esc(&job.id), esc(&job.operation));
    format!(
        "<article class=\"card job\"><div class=\"line\"><h3>{id}</h3>\
         <p class=\"percent\">{}</p></div><p class=\"note\">{}{attempt} · {operation} · running {}{}</p>\
         <div role=\"progressbar\" aria-label=\"Progress of {id}\" aria-valuemin=\"0\" \
         aria-valuemax=\"100\" aria-valuenow=\"{}\">{}</div>{}</article>",
        data(&format!("/jobs/{place}/percent"), job.percent, &format!("{} %", job.percent)),
        esc(&job.kind),
        span(seconds_between(&job.since, now)),
        energy.unwrap_or_default(),
        job.percent,
        meter(f64::from(job.percent), ""),
        log_of(&job.id, log),
    )
}

fn log_of(id: &str, lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let newest = &lines[lines.len().saturating_sub(LOG_LINES)..];
    format!(
        "<pre tabindex=\"0\" role=\"region\" aria-label=\"What {} printed last\">{}</pre>",
        esc(id),
        esc(&newest.join("\n")),
    )
}

/// A bar of so many percent; what it shows stands beside it in words.
pub(super) fn meter(percent: f64, class: &str) -> String {
    format!(
        "<svg class=\"meter {class}\" viewBox=\"0 0 100 8\" preserveAspectRatio=\"none\" \
         aria-hidden=\"true\"><rect width=\"{:.1}\" height=\"8\"/></svg>",
        percent.clamp(0.0, 100.0)
    )
}

pub(super) fn machine(snapshot: &Snapshot) -> String {
    let machine = &snapshot.machine;
    let mut rows = vec![
        row("Host", &format!("{}<br><small>{}</small>", esc(&machine.hostname), esc(&machine.os))),
        row(
            "Processor",
            &format!(
                "{}<br><small>{} cores{}</small>",
                esc(&machine.cpu_model),
                data("/machine/cpuCores", machine.cpu_cores, &machine.cpu_cores.to_string()),
                machine
                    .gflops
                    .map(|gflops| format!(
                        ", {} GFLOPS measured",
                        data("/machine/gflops", gflops, &number(gflops, 0))
                    ))
                    .unwrap_or_default(),
            ),
        ),
    ];
    if let Some(usage) = &snapshot.usage {
        if let Some(percent) = usage.cpu_percent {
            let shown = data("/usage/cpuPercent", percent, &format!("{percent:.0} %"));
            let warm = usage.cpu_temp_celsius.map(|celsius| {
                format!(
                    " · {}",
                    data("/usage/cpuTempCelsius", celsius, &format!("{celsius:.0} °C"))
                )
            });
            rows.push(row(
                "CPU use",
                &format!("{shown}{}{}", warm.unwrap_or_default(), meter(percent, "thin")),
            ));
        }
        let (used, total) = (usage.ram_used_gb, machine.ram_total_gb);
        rows.push(row(
            "Memory",
            &format!(
                "{} of {} GiB{}",
                data("/usage/ramUsedGb", used, &number(used, 1)),
                data("/machine/ramTotalGb", total, &number(total, 1)),
                meter(usage.ram_percent, "thin"),
            ),
        ));
        if let Some((free, total)) = usage.disk_free_gb.zip(usage.disk_total_gb) {
            rows.push(row(
                "Disk",
                &format!(
                    "{} of {} GiB free{}",
                    data("/usage/diskFreeGb", free, &number(free, 0)),
                    data("/usage/diskTotalGb", total, &number(total, 0)),
                    meter(100.0 - free / total.max(f64::MIN_POSITIVE) * 100.0, "thin"),
                ),
            ));
        }
        if usage.on_battery == Some(true) {
            rows.push(row("Power", "on battery"));
        }
    }
    rows.push(row("Worker id", &format!("<code>{}</code>", esc(&snapshot.worker_id))));
    format!("<dl class=\"facts\">{}</dl>", rows.concat())
}

fn row(name: &str, value: &str) -> String {
    format!("<div><dt>{name}</dt><dd>{value}</dd></div>")
}

pub(super) fn foot(snapshot: &Snapshot) -> String {
    let heard = snapshot.last_heartbeat.as_deref().map(|last| {
        format!(" · last heartbeat <time datetime=\"{}\">{}</time> UTC", esc(last), clock_of(last))
    });
    format!(
        "qubix-worker {} · <time id=\"at\" datetime=\"{}\">{}</time> UTC{}",
        esc(&snapshot.version),
        esc(&snapshot.at),
        clock_of(&snapshot.at),
        heard.unwrap_or_default(),
    )
}

/// `10:30:00` of an RFC 3339 time.
fn clock_of(time: &str) -> String {
    esc(time.get(11..19).unwrap_or(time))
}

/// `15 Jan 10:30 UTC` of an RFC 3339 time.
pub(super) fn minute(time: &str) -> String {
    format!("<time datetime=\"{}\">{}</time>", esc(time), esc(&plain_minute(time)))
}

fn plain_minute(time: &str) -> String {
    match (time.get(..10), time.get(11..16)) {
        (Some(date), Some(minute)) => format!("{} {minute}", short_date(date)),
        _ => time.to_owned(),
    }
}

/// `15 Jan` of `2026-01-15`.
pub(super) fn short_date(date: &str) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = || MONTHS.get(date.get(5..7)?.parse::<usize>().ok()?.checked_sub(1)?);
    match (month(), date.get(8..10)) {
        (Some(month), Some(day)) => format!("{} {month}", day.trim_start_matches('0')),
        _ => date.to_owned(),
    }
}

pub(super) fn plural(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn seconds_between(from: &str, to: &str) -> f64 {
    let parse = |time| humantime::parse_rfc3339(time).unwrap_or(SystemTime::UNIX_EPOCH);
    parse(to).duration_since(parse(from)).unwrap_or_default().as_secs_f64()
}
