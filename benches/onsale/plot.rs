//! Throughput and latency over time, as a picture.

use std::path::Path;

use plotters::prelude::*;

use crate::load::Answered;

const WIDTH: u32 = 960;
const HEIGHT: u32 = 640;
/// How wide a bucket is, in seconds.
const BUCKET: f64 = 0.1;

/// Draws answers per second above, and p50 and p99 of their latency below.
pub(crate) fn draw(path: &Path, title: &str, answers: &[Answered]) -> anyhow::Result<()> {
    let mut buckets: Vec<Vec<f64>> = Vec::new();
    for answer in answers {
        let bucket = (answer.at.as_secs_f64() / BUCKET) as usize;
        buckets.resize(buckets.len().max(bucket + 1), Vec::new());
        buckets[bucket].push(answer.took.as_secs_f64() * 1_000.0);
    }
    for bucket in &mut buckets {
        bucket.sort_by(f64::total_cmp);
    }
    let time = |bucket: usize| bucket as f64 * BUCKET;
    let rates: Vec<_> =
        buckets.iter().enumerate().map(|(at, bucket)| (time(at), bucket.len() as f64 / BUCKET)).collect();
    let latency = |share: f64| {
        let filled = buckets.iter().enumerate().filter(|(_, bucket)| !bucket.is_empty());
        filled
            .map(|(at, bucket)| (time(at), bucket[((bucket.len() - 1) as f64 * share) as usize]))
            .collect::<Vec<_>>()
    };
    let (p50, p99) = (latency(0.5), latency(0.99));
    let largest = |series: &[(f64, f64)]| series.iter().map(|(_, value)| *value).fold(1.0, f64::max);

    let canvas = SVGBackend::new(path, (WIDTH, HEIGHT)).into_drawing_area();
    canvas.fill(&WHITE)?;
    let (above, below) = canvas.split_vertically(HEIGHT / 2);
    let end = time(buckets.len());
    let charts = [
        (&above, format!("{title}: answers a second"), vec![("all", &rates, BLUE)]),
        (&below, "latency, ms".to_owned(), vec![("p50", &p50, GREEN), ("p99", &p99, RED)]),
    ];
    for (area, caption, series) in charts {
        let top = series.iter().map(|(_, points, _)| largest(points)).fold(1.0, f64::max) * 1.05;
        let mut chart = ChartBuilder::on(area)
            .caption(caption, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(28)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..end, 0.0..top)?;
        chart.configure_mesh().x_desc("seconds").draw()?;
        for (name, points, color) in series {
            let line = chart.draw_series(LineSeries::new(points.iter().copied(), color))?;
            line.label(name).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color));
        }
        chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
    }
    canvas.present()?;
    Ok(())
}
