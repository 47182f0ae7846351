//! Pooling against loops over every window, over geometries that reach past each edge.

use super::*;
use crate::isa::Level;
use crate::testing::{STALE, close, output, values, wide};

const SAMPLES: usize = 2;

/// Input height and width, window, strides, padding.
type Geometry = ([usize; 2], [usize; 2], [usize; 2], [usize; 4]);

const GEOMETRIES: [Geometry; 12] = [
    ([1, 1], [1, 1], [1, 1], [0; 4]),
    ([4, 6], [2, 2], [2, 2], [0; 4]),
    ([5, 7], [2, 2], [2, 2], [0; 4]),
    ([5, 7], [2, 2], [2, 2], [0, 1, 0, 1]),
    ([7, 5], [3, 3], [2, 2], [1, 1, 1, 1]),
    ([6, 6], [3, 3], [1, 1], [1, 1, 1, 1]),
    // As many values as windows have positions, yet windows that overlap or that start in the padding.
    ([6, 6], [3, 3], [2, 2], [0; 4]),
    ([4, 4], [2, 2], [2, 2], [1, 0, 1, 0]),
    ([5, 9], [2, 3], [1, 4], [1, 0, 2, 2]),
    ([9, 4], [1, 2], [3, 1], [0; 4]),
    ([3, 3], [5, 5], [1, 1], [2, 2, 2, 2]),
    ([16, 17], [15, 17], [1, 1], [0; 4]),
];

fn shapes() -> impl Iterator<Item = PoolShape> {
    GEOMETRIES.into_iter().flat_map(|([height, width], size, strides, padding)| {
        [1, 3, 4, 5, 8, 9, 15, 16, 17, 33].into_iter().map(move |channels| PoolShape {
            input: [height, width, channels],
            size,
            strides,
            padding,
        })
    })
}

/// For every output value, the input values in its window: (position in the window, index).
fn windows(shape: &PoolShape) -> Vec<Vec<(usize, usize)>> {
    let [height, width, channels] = shape.input;
    let [out_height, out_width, _] = shape.output();
    let mut all = Vec::new();
    for (sample, oy, ox, c) in (0..SAMPLES).flat_map(|s| {
        (0..out_height).flat_map(move |y| (0..out_width).flat_map(move |x| (0..channels).map(move |c| (s, y, x, c))))
    }) {
        let mut window = Vec::new();
        for (ky, kx) in (0..shape.size[0]).flat_map(|y| (0..shape.size[1]).map(move |x| (y, x))) {
            let y = (oy * shape.strides[0] + ky).wrapping_sub(shape.padding[0]);
            let x = (ox * shape.strides[1] + kx).wrapping_sub(shape.padding[2]);
            if y < height && x < width {
                window.push((ky * shape.size[1] + kx, ((sample * height + y) * width + x) * channels + c));
            }
        }
        all.push(window);
    }
    all
}

#[test]
fn max_and_average_match_the_loops() {
    for level in Level::available() {
        for shape in shapes() {
            let (inputs, outputs) = (SAMPLES * shape.input_len(), SAMPLES * shape.output_len());
            let windows = windows(&shape);
            assert_eq!(windows.len(), outputs, "{shape:?}");
            // Coarse values, so that there are equal ones.
            let x: Vec<f32> = values(inputs, 1).iter().map(|v| (v * 8.0).round() / 8.0 - 4.0).collect();
            let dy = values(outputs, 2);

            let best: Vec<(usize, usize)> = windows
                .iter()
                .map(|w| w.iter().copied().reduce(|a, b| if x[b.1] > x[a.1] { b } else { a }).expect("a window"))
                .collect();
            let mut argmax = vec![99u8; outputs];
            let y = output(outputs, STALE, |y| max_forward(level, &shape, SAMPLES, &x, y, &mut argmax));
            assert!(y.iter().zip(&best).all(|(&y, b)| y == x[b.1]), "{level:?} {shape:?}");
            assert!(argmax.iter().zip(&best).all(|(&p, b)| usize::from(p) == b.0), "{level:?} {shape:?}");
            assert_eq!(y, output(outputs, STALE, |y| max_forward(level, &shape, SAMPLES, &x, y, &mut [])));
            let mut want = vec![0.0f64; inputs];
            best.iter().zip(&dy).for_each(|(b, &dy)| want[b.1] += f64::from(dy));
            let dx = output(inputs, STALE, |dx| max_backward(level, &shape, SAMPLES, &dy, &argmax, dx));
            close((level, shape), &dx, &want, 4.0, 3.0);

            let want: Vec<f64> =
                windows.iter().map(|w| w.iter().map(|i| f64::from(x[i.1])).sum::<f64>() / w.len() as f64).collect();
            let y = output(outputs, STALE, |y| average_forward(level, &shape, SAMPLES, &x, y));
            close((level, shape), &y, &want, 16.0, 4.0);
            let mut want = vec![0.0f64; inputs];
            for (w, &dy) in windows.iter().zip(&dy) {
                w.iter().for_each(|i| want[i.1] += f64::from(dy) / w.len() as f64);
            }
            let dx = output(inputs, STALE, |dx| average_backward(level, &shape, SAMPLES, &dy, dx));
            close((level, shape), &dx, &want, 4.0, 3.0);
        }
    }
}

#[test]
fn global_pooling_matches_the_loops() {
    for level in Level::available() {
        for (pixels, channels) in [(1, 1), (1, 17), (49, 1), (49, 3), (16, 16), (7, 33), (5, 600), (1000, 10)] {
            let (inputs, outputs, what) = (SAMPLES * pixels * channels, SAMPLES * channels, (level, pixels, channels));
            let x: Vec<f32> = values(inputs, 1).iter().map(|v| (v * 8.0).round() / 8.0 - 4.0).collect();
            let dy = values(outputs, 2);
            let index = |out: usize, pixel: usize| (out / channels * pixels + pixel) * channels + out % channels;
            let column = |out: usize| (0..pixels).map(move |p| index(out, p));

            let want: Vec<f64> =
                (0..outputs).map(|o| column(o).map(|i| f64::from(x[i])).sum::<f64>() / pixels as f64).collect();
            let y = output(outputs, STALE, |y| global_average_forward(level, pixels, channels, SAMPLES, &x, y));
            close(what, &y, &want, 4.0, 4.0);
            let dx = output(inputs, STALE, |dx| global_average_backward(level, pixels, channels, SAMPLES, &dy, dx));
            let mut want = vec![0.0; inputs];
            (0..outputs).for_each(|o| column(o).for_each(|i| want[i] = f64::from(dy[o]) / pixels as f64));
            close(what, &dx, &want, 2.0, 0.0);

            let best: Vec<usize> = (0..outputs)
                .map(|o| (0..pixels).reduce(|a, b| if x[index(o, b)] > x[index(o, a)] { b } else { a }).unwrap_or(0))
                .collect();
            let mut argmax = vec![STALE; outputs];
            let y = output(outputs, STALE, |y| {
                global_max_forward(level, pixels, channels, SAMPLES, &x, y, &mut argmax);
            });
            assert!((0..outputs).all(|o| y[o] == x[index(o, best[o])]), "{what:?}");
            assert_eq!(argmax, best.iter().map(|&p| p as f32).collect::<Vec<_>>(), "{what:?}");
            let dx = output(inputs, STALE, |dx| {
                global_max_backward(level, pixels, channels, SAMPLES, &dy, &argmax, dx);
            });
            let mut want = vec![0.0; inputs];
            (0..outputs).for_each(|o| want[index(o, best[o])] = dy[o]);
            close(what, &dx, &wide(&want), 0.0, 0.0);
        }
    }
}

#[test]
fn some_rows_are_the_rows_of_the_whole() {
    for level in Level::available() {
        for shape in shapes() {
            let [rows, ..] = shape.output();
            let (row, width) = (shape.output()[1] * shape.input[2], shape.input[1] * shape.input[2]);
            let x = values(shape.input_len(), 7);
            let (mut most, mut mean) = (vec![0.0; shape.output_len()], vec![0.0; shape.output_len()]);
            let mut argmax = vec![0; most.len()];
            max_forward(level, &shape, 1, &x, &mut most, &mut argmax);
            average_forward(level, &shape, 1, &x, &mut mean);
            for (first, end) in (0..rows).flat_map(|first| (first + 1..=rows).map(move |end| (first, end))) {
                let (part, input) = shape.some_rows(first..end);
                let x = &x[input.start * width..input.end * width];
                let len = (end - first) * row;
                let mut got = (vec![0.0; len], vec![0.0; len], vec![0; len]);
                max_forward(level, &part, 1, x, &mut got.0, &mut got.2);
                average_forward(level, &part, 1, x, &mut got.1);
                let range = first * row..end * row;
                assert_eq!(got.0, most[range.clone()], "{shape:?} {first}..{end}");
                assert_eq!(got.1, mean[range.clone()], "{shape:?} {first}..{end}");
                assert_eq!(got.2, argmax[range], "{shape:?} {first}..{end}");
            }
        }
    }
}
