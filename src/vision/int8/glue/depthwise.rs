//! Depthwise convolution, a line at a time.

use crate::vision::int8::kernels::vector::Vector;
use crate::vision::int8::kernels::windows::Windows;

/// A depthwise convolution of one NHWC image.
#[derive(Debug, Clone, Copy)]
pub struct Depthwise<'a> {
    /// The image.
    pub x: &'a [f32],
    /// Its height and width.
    pub size: (usize, usize),
    /// `[kernel row][kernel column][channel]`.
    pub taps: &'a [f32],
    /// One a channel.
    pub bias: &'a [f32],
    /// Kernel height and width.
    pub kernel: (usize, usize),
    /// Rows and columns from one output pixel to the next.
    pub stride: (usize, usize),
    /// Zeros above and left of the image.
    pub before: (usize, usize),
    /// Limits of the output.
    pub clamp: (f32, f32),
}

/// Writes line `y` of the output.
#[inline(always)]
pub fn depthwise<V: Vector>(d: &Depthwise, y: usize, out: &mut [f32]) {
    let channels = d.bias.len();
    let mut c = 0;
    while c + V::LANES <= channels {
        depthwise_channels::<V>(d, y, c, out);
        c += V::LANES;
    }
    for c in c..channels {
        depthwise_channels::<f32>(d, y, c, out);
    }
}

/// One register's worth of channels of one line.
#[inline(always)]
fn depthwise_channels<V: Vector>(d: &Depthwise, y: usize, c: usize, out: &mut [f32]) {
    match (d.kernel, d.stride.1) {
        ((2, 2), 2) if d.size.1 >= 2 => depthwise_line::<V, 2, 2>(d, (y, c), out),
        ((3, 3), 1) if d.size.1 >= 3 => depthwise_line::<V, 3, 1>(d, (y, c), out),
        ((3, 3), 2) if d.size.1 >= 3 => depthwise_line::<V, 3, 2>(d, (y, c), out),
        _ => (0..out.len() / d.bias.len()).for_each(|x| depthwise_at::<V>(d, (y, x), c, out)),
    }
}

/// The same for windows of `N` x `N`, `S` pixels apart, on lines of at least `N` pixels.
#[inline(always)]
fn depthwise_line<V: Vector, const N: usize, const S: usize>(d: &Depthwise, (y, c): (usize, usize), out: &mut [f32]) {
    let (channels, (height, width)) = (d.bias.len(), d.size);
    let mut taps = [[V::splat(0.0); N]; N];
    let mut lines = [&d.x[..0]; N];
    for ky in 0..N {
        // A line above or below the image counts nothing: any other line stands for it, with taps of zero.
        let line = (y * d.stride.0 + ky).checked_sub(d.before.0).filter(|line| *line < height);
        if line.is_some() {
            for (kx, tap) in taps[ky].iter_mut().enumerate() {
                *tap = V::load(&d.taps[(N * ky + kx) * channels + c..]);
            }
        }
        lines[ky] = &d.x[line.unwrap_or(0) * width * channels..][..width * channels];
    }
    let clamp = (V::splat(d.clamp.0), V::splat(d.clamp.1));
    let windows = Windows { lines, taps, bias: V::load(&d.bias[c..]), clamp, channels };
    let columns = out.len() / channels;
    let first = d.before.1.div_ceil(S).min(columns);
    let end = ((width + d.before.1 - N) / S + 1).clamp(first, columns);
    if first < end {
        windows.run::<S>(end - first, (first * S - d.before.1) * channels + c, &mut out[first * channels + c..]);
    }
    for x in (0..first).chain(end..columns) {
        // A window that reaches over the edge: the outermost inside it, with the taps moved along and zeros behind them.
        let from = (x * S).saturating_sub(d.before.1).min(width - N);
        let mut edge = windows;
        for (moved, taps) in edge.taps.iter_mut().zip(&windows.taps) {
            for (pixel, tap) in moved.iter_mut().enumerate() {
                let place = (from + pixel + d.before.1).checked_sub(x * S);
                *tap = place.and_then(|place| taps.get(place)).copied().unwrap_or(V::splat(0.0));
            }
        }
        edge.run::<S>(1, from * channels + c, &mut out[x * channels + c..]);
    }
}

/// One register's worth of channels of one output pixel.
#[inline(always)]
fn depthwise_at<V: Vector>(d: &Depthwise, (y, x): (usize, usize), c: usize, out: &mut [f32]) {
    let channels = d.bias.len();
    let (height, width) = d.size;
    let mut sum = V::load(&d.bias[c..]);
    let (top, left) = (y * d.stride.0, x * d.stride.1);
    for ky in d.before.0.saturating_sub(top)..d.kernel.0.min(height + d.before.0 - top) {
        let line = (top + ky - d.before.0) * width;
        for kx in d.before.1.saturating_sub(left)..d.kernel.1.min(width + d.before.1 - left) {
            let pixel = V::load(&d.x[(line + left + kx - d.before.1) * channels + c..]);
            sum = pixel.fma(V::load(&d.taps[(ky * d.kernel.1 + kx) * channels + c..]), sum);
        }
    }
    sum.max(V::splat(d.clamp.0)).min(V::splat(d.clamp.1)).store(&mut out[x * channels + c..]);
}
