//! Charts as inline SVG. What they show is also said in words: their labels are for whoever cannot see
//! them.

use super::Day;
use super::history::Point;
use super::html::{esc, number};

/// The drawing's own units: it is stretched to the room that the page has.
const WIDTH: f32 = 300.0;
const HEIGHT: f32 = 44.0;

/// A curve is not drawn across a hole longer than this: nobody was looking.
const HOLE: f32 = 30.0;

/// The first points of a curve are not drawn wider than they are in so many seconds.
const LEAST_SPAN: f32 = 60.0;

/// A curve of the last hour between 0 and `top`, with its label.
pub(super) fn sparkline(points: &[Point], top: f32, label: &str) -> String {
    let span = drawn_span(points);
    let x = |point: &Point| WIDTH * (1.0 - point.ago / span);
    let y = |point: &Point| HEIGHT - 1.0 - (HEIGHT - 2.0) * (point.value / top).clamp(0.0, 1.0);
    let (mut lines, mut areas) = (String::new(), String::new());
    for run in points.chunk_by(|one, next| one.ago - next.ago <= HOLE) {
        let line: String =
            run.iter().map(|point| format!("{:.1},{:.1} ", x(point), y(point))).collect();
        let line = line.trim_end();
        // A chunk is never empty.
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        let (from, to) = (x(first), x(last));
        areas.extend([format!("M{from:.1},{HEIGHT} L{line} L{to:.1},{HEIGHT}Z")]);
        lines.extend(["M", line]);
    }
    format!(
        "<svg class=\"spark\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" \
         role=\"img\" aria-label=\"{}\"><path class=\"area\" d=\"{areas}\"/>\
         <path class=\"line\" d=\"{lines}\"/></svg>",
        esc(label)
    )
}

/// How long ago the left end of a curve is, in seconds.
pub(super) fn drawn_span(points: &[Point]) -> f32 {
    points.first().map_or(LEAST_SPAN, |first| first.ago.max(LEAST_SPAN))
}

/// How a curve goes, in words.
pub(super) fn in_words(what: &str, points: &[Point], unit: &str) -> String {
    let values = || points.iter().map(|point| point.value);
    let (Some(least), Some(most)) = (values().reduce(f32::min), values().reduce(f32::max)) else {
        return format!("{what}: nothing was measured yet");
    };
    let minutes = points.first().map_or(0.0, |first| first.ago) / 60.0;
    format!("{what}, last {minutes:.0} min: between {least:.0} and {most:.0} {unit}")
}

/// A bar a day, oldest first, the highest as high as the chart.
pub(super) fn bars(days: &[Day], label: &str) -> String {
    let top = days.iter().map(|day| day.amount).fold(0.0, f64::max);
    let step = 600.0 / days.len().max(1) as f64;
    let bar = |(place, day): (usize, &Day)| {
        let share = if top > 0.0 { day.amount / top } else { 0.0 };
        // A day without earnings has a line to stand for it.
        let height = (share * 118.0).max(1.5);
        let class = if day.amount > 0.0 { "bar" } else { "bar none" };
        format!(
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" \
             rx=\"2\"><title>{}: {}</title></rect>",
            step * place as f64 + step * 0.14,
            120.0 - height,
            step * 0.72,
            esc(&day.date),
            number(day.amount, 2),
        )
    };
    let bars: String = days.iter().enumerate().map(bar).collect();
    format!(
        "<svg class=\"bars\" viewBox=\"0 0 600 120\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"{}\">{bars}</svg>",
        esc(label)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(ago: f32, value: f32) -> Point {
        Point { ago, value }
    }

    #[test]
    fn a_curve_runs_from_left_to_right_and_stays_in_its_frame() {
        let drawn =
            sparkline(&[point(60.0, 0.0), point(50.0, 50.0), point(40.0, 900.0)], 100.0, "a");
        assert!(drawn.contains("d=\"M0.0,43.0 50.0,22.0 100.0,1.0\""), "{drawn}");
    }

    #[test]
    fn a_curve_is_broken_where_nobody_looked() {
        let drawn =
            sparkline(&[point(300.0, 50.0), point(10.0, 50.0), point(0.0, 50.0)], 100.0, "a");
        assert!(drawn.contains("d=\"M0.0,22.0M290.0,22.0 300.0,22.0\""), "{drawn}");
    }

    #[test]
    fn a_chart_says_what_it_shows() {
        let points = [point(120.0, 40.2), point(0.0, 66.0)];
        let said = in_words("Temperature", &points, "°C");
        assert_eq!(said, "Temperature, last 2 min: between 40 and 66 °C");
        assert_eq!(in_words("Power", &[], "W"), "Power: nothing was measured yet");
        assert!(sparkline(&points, 100.0, "a \"b\" <c>").contains("\"a &quot;b&quot; &lt;c&gt;\""));
    }

    #[test]
    fn the_best_day_is_as_high_as_the_chart_and_an_empty_one_is_a_line() {
        let day = |amount| Day { date: "2026-01-15".into(), amount, ..Day::default() };
        let drawn = bars(&[day(0.0), day(5.0), day(10.0)], "earnings");
        for height in ["height=\"1.5\"", "height=\"59.0\"", "height=\"118.0\""] {
            assert!(drawn.contains(height), "{height}: {drawn}");
        }
    }
}
