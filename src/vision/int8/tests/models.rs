//! The models the tests run: small convolutional towers with every kind of layer, and vision transformers.

use tract_onnx::pb::ModelProto;

use super::onnx::{Value, Writer};

/// Stem, depthwise, pointwise, a residual block with a strided and a padded window, pooling, a projection.
pub fn convolutional(int8: bool) -> ModelProto {
    let mut w = Writer::new(int8);
    let (zero, six) = (w.floats(&[], &[0.0]), w.floats(&[], &[6.0]));
    let x = w.conv("image", [24, 3, 3, 3], 2, 1, 1);
    let x = w.op("Clip", &[&x, &zero, &six], &[]);
    let x = w.conv(&x, [24, 1, 3, 3], 1, 1, 24);
    let x = w.op("Clip", &[&x, &zero, &six], &[]);
    let skip = w.conv(&x, [40, 24, 1, 1], 1, 0, 1);
    let x = w.conv(&skip, [20, 40, 1, 1], 1, 0, 1);
    let x = w.op("Relu", &[&x], &[]);
    let x = w.conv(&x, [40, 20, 3, 3], 1, 1, 1);
    let x = w.op("Add", &[&x, &skip], &[]);
    let x = w.op("Relu", &[&x], &[]);
    let x = w.op("AveragePool", &[&x], &[("kernel_shape", Value::Ints(&[2, 2])), ("strides", Value::Ints(&[2, 2]))]);
    let x = w.conv(&x, [36, 40, 3, 3], 2, 1, 1);
    let x = w.op("Relu", &[&x], &[]);
    let x = w.op("GlobalAveragePool", &[&x], &[]);
    let x = w.op("Flatten", &[&x], &[]);
    let x = w.linear(&x, (36, 32), 0.2);
    w.finish(&x)
}

/// Convolutions, one of them of many channels, and an attention pool, in which the mean of all pixels asks them, as OpenCLIP exports it.
pub fn attention_pooled(int8: bool) -> ModelProto {
    let (width, head) = (64i64, 16i64);
    let mut w = Writer::new(int8);
    let x = w.conv("image", [32, 3, 3, 3], 2, 1, 1);
    let x = w.op("Relu", &[&x], &[]);
    let x = w.conv(&x, [128, 32, 3, 3], 2, 1, 1);
    let x = w.op("Relu", &[&x], &[]);
    let x = w.conv(&x, [128, 128, 3, 3], 1, 1, 1);
    let x = w.op("Relu", &[&x], &[]);
    let x = w.conv(&x, [width as usize, 128, 3, 3], 2, 1, 1);
    let x = w.op("Relu", &[&x], &[]);
    let flat = w.ints(&[3], &[0, width, -1]);
    let x = w.op("Reshape", &[&x, &flat], &[]);
    let x = w.op("Transpose", &[&x], &[("perm", Value::Ints(&[0, 2, 1]))]);
    let [zero, one] = [0, 1].map(|i| w.ints(&[1], &[i]));
    let mean = w.op("ReduceMean", &[&x, &one], &[("keepdims", Value::Int(1))]);
    let x = w.op("Concat", &[&mean, &x], &[("axis", Value::Int(1))]);
    let place = w.randoms(17 * 64, 0.2);
    let place = w.floats(&[17, 64], &place);
    let x = w.op("Add", &[&x, &place], &[]);
    let asking = w.op("Slice", &[&x, &zero, &one, &one], &[]);
    let heads = w.ints(&[4], &[0, -1, width / head, head]);
    let [q, k, v] = [&asking, &x, &x].map(|x| {
        let y = w.linear(x, (64, 64), 0.2);
        w.op("Reshape", &[&y, &heads], &[])
    });
    let q = w.op("Transpose", &[&q], &[("perm", Value::Ints(&[0, 2, 1, 3]))]);
    let k = w.op("Transpose", &[&k], &[("perm", Value::Ints(&[0, 2, 3, 1]))]);
    let v = w.op("Transpose", &[&v], &[("perm", Value::Ints(&[0, 2, 1, 3]))]);
    let scores = w.op("MatMul", &[&q, &k], &[]);
    let scores = w.op("Softmax", &[&scores], &[("axis", Value::Int(-1))]);
    let y = w.op("MatMul", &[&scores, &v], &[]);
    let y = w.op("Transpose", &[&y], &[("perm", Value::Ints(&[0, 2, 1, 3]))]);
    let join = w.ints(&[2], &[-1, width]);
    let y = w.op("Reshape", &[&y, &join], &[]);
    let y = w.linear(&y, (64, 32), 0.2);
    w.finish(&y)
}

/// The shape of a vision transformer.
pub struct Transformer {
    pub size: usize,
    pub patch: usize,
    pub width: usize,
    pub layers: usize,
    pub head: usize,
    pub embed: usize,
    /// Plants outlier channels: a few gains of every layer normalisation times 30, the weights they meet by 1 / 30.
    pub outliers: bool,
    /// `x · sigmoid(1.702 x)` in place of GELU.
    pub quick: bool,
}

impl Transformer {
    /// A small one.
    pub const SMALL: Transformer =
        Transformer { size: 48, patch: 16, width: 64, layers: 2, head: 32, embed: 24, outliers: false, quick: false };

    /// ViT-B-32 with outliers.
    pub const B32: Transformer = Transformer {
        size: 224,
        patch: 32,
        width: 768,
        layers: 12,
        head: 64,
        embed: 512,
        outliers: true,
        quick: false,
    };

    fn tokens(&self) -> usize {
        (self.size / self.patch).pow(2) + 1
    }

    /// Writes it, with OpenCLIP's initial deviations.
    pub fn model(&self, int8: bool) -> ModelProto {
        let mut w = Writer::new(int8);
        let width = self.width as f32;
        let x = w.conv("image", [self.width, 3, self.patch, self.patch], self.patch as i64, 0, 1);
        let flat = w.ints(&[3], &[0, self.width as i64, -1]);
        let x = w.op("Reshape", &[&x, &flat], &[]);
        let x = w.op("Transpose", &[&x], &[("perm", Value::Ints(&[0, 2, 1]))]);
        let pads = w.ints(&[6], &[0, 1, 0, 0, 0, 0]);
        let x = w.op("Pad", &[&x, &pads], &[]);
        let place = w.randoms(self.tokens() * self.width, width.powf(-0.5));
        let place = w.floats(&[1, self.tokens(), self.width], &place);
        let x = w.op("Add", &[&x, &place], &[]);
        let mut x = self.norm(&mut w, &x).0;
        for _ in 0..self.layers {
            x = self.attention(&mut w, &x);
            x = self.perceptron(&mut w, &x);
        }
        let (x, _) = self.norm(&mut w, &x);
        let first = w.ints(&[], &[0]);
        let x = w.op("Gather", &[&x, &first], &[("axis", Value::Int(1))]);
        let projection = w.randoms(self.width * self.embed, width.powf(-0.5));
        let projection = w.weight(&[self.width, self.embed], 1, &projection);
        let x = w.op("MatMul", &[&x, &projection], &[]);
        w.finish(&x)
    }

    /// A layer normalisation, and what the weights behind it must be multiplied with, one a channel.
    fn norm(&self, w: &mut Writer, x: &str) -> (String, Vec<f32>) {
        let mut gain: Vec<f32> = w.randoms(self.width, 0.1).into_iter().map(|g| 1.0 + g).collect();
        let mut bias = w.randoms(self.width, 0.1);
        let mut undo = vec![1.0; self.width];
        if self.outliers {
            for channel in [5, 77, 133, 308, 511, 700].map(|c| c % self.width) {
                gain[channel] *= 30.0;
                bias[channel] *= 30.0;
                undo[channel] /= 30.0;
            }
        }
        let gain = w.floats(&[self.width], &gain);
        let bias = w.floats(&[self.width], &bias);
        (w.op("LayerNormalization", &[x, &gain, &bias], &[("epsilon", Value::Float(1e-5))]), undo)
    }

    fn behind_norm(&self, w: &mut Writer, x: &str, n: usize, deviation: f32) -> String {
        let (x, undo) = self.norm(w, x);
        let mut weight = w.randoms(self.width * n, deviation);
        weight.iter_mut().enumerate().for_each(|(i, v)| *v *= undo[i / n]);
        w.linear_of(&x, (self.width, n), &weight)
    }

    fn attention(&self, w: &mut Writer, x: &str) -> String {
        let (width, heads, head) = (self.width as f32, (self.width / self.head) as i64, self.head as i64);
        let qkv = self.behind_norm(w, x, 3 * self.width, width.powf(-0.5));
        let split = w.ints(&[5], &[0, 0, 3, heads, head]);
        let qkv = w.op("Reshape", &[&qkv, &split], &[]);
        let qkv = w.op("Transpose", &[&qkv], &[("perm", Value::Ints(&[2, 0, 3, 1, 4]))]);
        let [q, k, v] = [0, 1, 2].map(|i| {
            let index = w.ints(&[], &[i]);
            w.op("Gather", &[&qkv, &index], &[("axis", Value::Int(0))])
        });
        let scale = w.floats(&[], &[(self.head as f32).powf(-0.5)]);
        let q = w.op("Mul", &[&q, &scale], &[]);
        let k = w.op("Transpose", &[&k], &[("perm", Value::Ints(&[0, 1, 3, 2]))]);
        let scores = w.op("MatMul", &[&q, &k], &[]);
        let scores = w.op("Softmax", &[&scores], &[("axis", Value::Int(-1))]);
        let y = w.op("MatMul", &[&scores, &v], &[]);
        let y = w.op("Transpose", &[&y], &[("perm", Value::Ints(&[0, 2, 1, 3]))]);
        let join = w.ints(&[3], &[0, 0, self.width as i64]);
        let y = w.op("Reshape", &[&y, &join], &[]);
        let y = w.linear(&y, (self.width, self.width), width.powf(-0.5) * (2.0 * self.layers as f32).powf(-0.5));
        w.op("Add", &[x, &y], &[])
    }

    fn perceptron(&self, w: &mut Writer, x: &str) -> String {
        let width = self.width as f32;
        let y = self.behind_norm(w, x, 4 * self.width, (2.0 * width).powf(-0.5));
        let y = if self.quick {
            let factor = w.floats(&[], &[1.702]);
            let scaled = w.op("Mul", &[&y, &factor], &[]);
            let sigmoid = w.op("Sigmoid", &[&scaled], &[]);
            w.op("Mul", &[&y, &sigmoid], &[])
        } else {
            w.op("Gelu", &[&y], &[])
        };
        let deviation = width.powf(-0.5) * (2.0 * self.layers as f32).powf(-0.5);
        let y = w.linear(&y, (4 * self.width, self.width), deviation);
        w.op("Add", &[x, &y], &[])
    }
}
