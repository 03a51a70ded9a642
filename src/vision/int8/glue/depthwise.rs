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
    let done = match (d.kernel, d.stride.1) {
        ((2, 2), 2) => depthwise_line::<V, 2, 2>(d, y, out),
        ((3, 3), 1) => depthwise_line::<V, 3, 1>(d, y, out),
        ((3, 3), 2) => depthwise_line::<V, 3, 2>(d, y, out),
        _ => false,
    };
    if done {
        return;
    }
    let channels = d.bias.len();
    let whole = channels / V::LANES * V::LANES;
    for x in 0..out.len() / channels {
        for c in (0..whole).step_by(V::LANES) {
            depthwise_at::<V>(d, (y, x), c, out);
        }
        for c in whole..channels {
            depthwise_at::<f32>(d, (y, x), c, out);
        }
    }
}

/// The same for windows of `N` x `N`, `S` pixels apart. False, and nothing done, where one reaches far over an edge.
#[inline(always)]
fn depthwise_line<V: Vector, const N: usize, const S: usize>(d: &Depthwise, y: usize, out: &mut [f32]) -> bool {
    let (channels, (height, width)) = (d.bias.len(), d.size);
    let line = |ky: usize| {
        let line = (y * d.stride.0 + ky).checked_sub(d.before.0).filter(|line| *line < height);
        (&d.x[line.unwrap_or(0) * width * channels..][..width * channels], line.is_some())
    };
    let windows = Windows::<N> {
        lines: std::array::from_fn(line),
        width,
        taps: d.taps,
        bias: d.bias,
        clamp: d.clamp,
        before: d.before.1,
    };
    let reached = windows.reach(out.len() / channels, S);
    if reached {
        windows.run::<V, S>(out);
    }
    reached
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
