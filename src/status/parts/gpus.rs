//! The GPUs' cards, each with its last hour.

use std::time::Duration;

use super::meter;
use crate::snapshot::{Gpu, GpuUse, Snapshot};
use crate::status::chart::{drawn_span, in_words, sparkline};
use crate::status::history::{Curve, History, Point};
use crate::status::html::{data, esc, number};

/// No GPU is let get hotter.
const HOT: f64 = 100.0;

pub(in crate::status) fn gpus(snapshot: &Snapshot, history: &History, now: Duration) -> String {
    let machine = &snapshot.machine;
    let empty = |why: &str| format!("<div class=\"card empty\">{}</div>", esc(why));
    let cards = machine.gpus.iter().enumerate().map(|(place, gpu)| {
        let usage = snapshot.usage.as_ref().map_or(&[][..], |usage| &usage.gpus);
        let usage = usage.iter().enumerate().find(|(_, usage)| usage.index == gpu.index);
        let curves = usage.map(|(at, usage)| curves(at, usage, history, now));
        card(place, gpu, &curves.unwrap_or_else(|| empty("It has not answered yet.")))
    });
    let cards: String = cards.collect();
    match &machine.gpu_absence {
        Some(why) => cards + &empty(why),
        None if cards.is_empty() => empty("This machine has no GPU."),
        None => cards,
    }
}

fn card(place: usize, gpu: &Gpu, curves: &str) -> String {
    let memory = gpu.vram_gb.map(|gib| {
        let path = format!("/machine/gpus/{place}/vramGb");
        format!("{} GiB", data(&path, gib, &number(gib, 0)))
    });
    let driver = gpu.driver.as_deref().map(|driver| format!("driver {}", esc(driver)));
    let index = Some(format!("GPU {}", gpu.index));
    let facts: Vec<String> = [index, memory, driver].into_iter().flatten().collect();
    format!(
        "<article class=\"card gpu\"><h3>{}</h3><p class=\"note\">{}</p>{curves}</article>",
        esc(gpu.name.as_deref().unwrap_or("GPU without a name")),
        facts.join(" · "),
    )
}

fn curves(at: usize, usage: &GpuUse, history: &History, now: Duration) -> String {
    let path = |field: &str| format!("/usage/gpus/{at}/{field}");
    let shown = |field: &str, value: Option<f64>, unit: &str| match value {
        Some(value) => {
            format!("{} <small>{unit}</small>", data(&path(field), value, &number(value, 0)))
        }
        None => "<small>not told</small>".to_owned(),
    };
    let limit = usage
        .power_limit_watts
        .map(|limit| format!("of {} W", data(&path("powerLimitWatts"), limit, &number(limit, 0))));
    let of_limit = limit.as_deref().unwrap_or("W");
    let top = usage.power_limit_watts.or(usage.power_watts).unwrap_or(1.0);
    let points = |curve| history.curve(usage.index, curve, now);
    let warmth = points(Curve::Celsius);
    let rows = [
        memory(usage, &path).unwrap_or_default(),
        Row { what: "Utilisation", class: "use", unit: "%", top: 100.0 }
            .html(&shown("percent", usage.percent, "%"), &points(Curve::Percent)),
        Row { what: "Temperature", class: "heat", unit: "°C", top: HOT }
            .html(&shown("tempCelsius", usage.temp_celsius, "°C"), &warmth),
        Row { what: "Power", class: "watts", unit: "W", top }
            .html(&shown("powerWatts", usage.power_watts, of_limit), &points(Curve::Watts)),
    ];
    format!("<dl>{}</dl>{}", rows.concat(), ends(&warmth))
}

/// A value and its last hour.
struct Row {
    what: &'static str,
    class: &'static str,
    unit: &'static str,
    top: f64,
}

impl Row {
    fn html(&self, shown: &str, points: &[Point]) -> String {
        let Self { what, class, unit, top } = self;
        #[expect(clippy::cast_possible_truncation, reason = "the height of a drawing")]
        let drawn = sparkline(points, *top as f32, &in_words(what, points, unit));
        format!(
            "<div class=\"curve {class}\"><dt>{what}</dt><dd class=\"value\">{shown}</dd>\
             <dd class=\"chart\">{drawn}</dd></div>"
        )
    }
}

fn memory(usage: &GpuUse, path: &dyn Fn(&str) -> String) -> Option<String> {
    let (used, total) = usage.memory_used_mb.zip(usage.memory_total_mb)?;
    let gib = |mib: u64, digits| number(mib as f64 / 1024.0, digits);
    Some(format!(
        "<div class=\"curve\"><dt>Memory</dt><dd class=\"value\">{} <small>of {} GiB</small></dd>\
         <dd class=\"chart\">{}</dd></div>",
        data(&path("memoryUsedMb"), used, &gib(used, 1)),
        data(&path("memoryTotalMb"), total, &gib(total, 0)),
        meter(used as f64 / total.max(1) as f64 * 100.0, ""),
    ))
}

/// What the left and the right end of the curves stand for.
fn ends(points: &[Point]) -> String {
    let minutes = (drawn_span(points) / 60.0).round();
    format!(
        "<p class=\"ends\" aria-hidden=\"true\"><span>{minutes} min ago</span><span>now</span></p>"
    )
}
