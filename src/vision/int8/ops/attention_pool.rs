//! Attention of one query a picture, whose keys and values are never computed: the attention pool of a CLIP ResNet, and the last
//! block of a transformer of which the class token alone goes on. [`attend_once`](super::super::glue::attend_once) says how.

use tract_onnx::tract_hir::internal::*;

use super::equal_by_identity;
use crate::vision::int8::aligned::Aligned;
use crate::vision::int8::glue::{self, AttendOnce, HEADS, Head, PANEL};
use crate::vision::int8::runtime::Runtime;

/// Int8 weights between tokens and the channels of all heads.
#[derive(Debug)]
pub struct Projection {
    panels: Aligned<i8>,
    head_bytes: usize,
    /// One a channel, head by head.
    scale: Vec<f32>,
    bias: Vec<f32>,
}

impl Projection {
    /// Of `heads` heads, from `inner` values to `columns` each; `weight` says what stands in a head's matrix at a line and a column.
    pub fn new(
        (heads, inner, columns): (usize, usize, usize),
        (scale, bias): (Vec<f32>, Vec<f32>),
        weight: impl Fn(usize, usize, usize) -> i8,
    ) -> Projection {
        let panel_bytes = inner * PANEL;
        let head_bytes = columns.div_ceil(PANEL) * panel_bytes;
        let mut panels = Aligned::zeroed(heads * head_bytes);
        for (at, panel) in panels.get_mut().chunks_exact_mut(panel_bytes).enumerate() {
            let (head, from) = (at * panel_bytes / head_bytes, at * panel_bytes % head_bytes / inner);
            for (line, bytes) in panel.chunks_exact_mut(PANEL).enumerate() {
                for (byte, column) in bytes.iter_mut().zip(from..columns) {
                    *byte = weight(head, line, column);
                }
            }
        }
        Projection { panels, head_bytes, scale, bias }
    }

    fn head(&self, head: usize, channels: usize) -> glue::Projection<'_> {
        glue::Projection {
            panels: &self.panels.get()[head * self.head_bytes..][..self.head_bytes],
            scale: &self.scale[head * channels..][..channels],
            bias: &self.bias[head * channels..][..channels],
        }
    }
}

/// Inputs: the rows that ask, one a picture, and all tokens, `tokens` rows a picture. The output is a matrix of a row a picture.
#[derive(Debug, Clone)]
pub struct AttentionPool {
    /// Kernel and threads.
    pub runtime: Arc<Runtime>,
    /// Queries and values as from a token to a head's channels, keys as from those to a token.
    pub projections: Arc<[Projection; 3]>,
    /// Heads.
    pub heads: usize,
    /// Channels of a head: of queries and keys, and of values.
    pub depth: (usize, usize),
    /// Tokens of one picture.
    pub tokens: usize,
    /// Multiplied onto the products of queries and keys; above 0.
    pub scale: f32,
}

equal_by_identity!(AttentionPool, projections);

impl Op for AttentionPool {
    fn name(&self) -> StaticName {
        "AttentionPoolInt8".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        let (keys, values) = self.depth;
        Ok(vec![format!("{} heads, {} tokens, depth {keys} and {values}", self.heads, self.tokens)])
    }

    op_as_typed_op!();
}

impl EvalOp for AttentionPool {
    not_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (asking, answering) = (inputs[0].try_as_plain_ram()?, inputs[1].try_as_plain_ram()?);
        let (asking, answering) = (asking.as_slice::<f32>()?, answering.as_slice::<f32>()?);
        let (pictures, asking_width) = (inputs[0].shape()[0], inputs[0].shape()[1]);
        let width = inputs[1].shape()[1];
        let out_width = self.heads * self.depth.1;
        let mut out = self.runtime.output(&[pictures, out_width])?;
        let mut view = out.try_as_plain_ram_mut()?;
        let Runtime { kernel, pool, .. } = &*self.runtime;
        pool.blocks(view.as_slice_mut::<f32>()?, out_width, (1, HEADS * self.depth.1), |block| {
            let (picture, first) = (block.rows().start, block.columns().start / self.depth.1);
            let heads: [Head; HEADS] = std::array::from_fn(|head| self.head((first + head).min(self.heads - 1)));
            let attend = AttendOnce {
                query: &asking[picture * asking_width..][..asking_width],
                tokens: (&answering[picture * self.tokens * width..][..self.tokens * width], self.tokens, width),
                heads: &heads[..HEADS.min(self.heads - first)],
                depth: self.depth,
                scale: self.scale,
            };
            Runtime::with_thread_values(attend.scratch(), |scratch| {
                (kernel.glue.attend_once)(&attend, scratch, block.row(picture));
            });
        });
        self.runtime.give_back(inputs);
        Ok(tvec!(out.into_tvalue()))
    }
}

impl AttentionPool {
    fn head(&self, head: usize) -> Head<'_> {
        let [q, k, v] = &*self.projections;
        Head { q: q.head(head, self.depth.0), k: k.head(head, self.depth.0), v: v.head(head, self.depth.1) }
    }
}

impl TypedOp for AttentionPool {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!(inputs[1].shape[0] == inputs[0].shape[0].clone() * self.tokens, "AttentionPoolInt8: {inputs:?}");
        Ok(tvec!(f32::fact([inputs[0].shape[0].clone(), (self.heads * self.depth.1).to_dim()])))
    }

    fn cost(&self, inputs: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        let (asking, token) = (inputs[0].shape[1].to_usize()?, inputs[1].shape[1].to_usize()?);
        let (keys, values) = self.depth;
        let head = keys * asking + keys * token + 2 * self.tokens * token + values * token;
        Ok(tvec!((Cost::FMA(f32::datum_type()), inputs[0].shape[0].clone() * (self.heads * head))))
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vision::int8::kernels::KernelChoice;

    /// Against keys and values that are computed, with a bias of the keys too.
    #[test]
    fn a_query_reads_what_it_would_read_from_keys_and_values() {
        let mut state = 7u32;
        let mut random = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        for (tokens, width, heads, depth) in
            [(8, 16, 1, (1, 1)), (50, 64, 5, (64, 64)), (9, 80, 4, (20, 70)), (33, 48, 3, (130, 5))]
        {
            let mut some = |count: usize| -> Vec<f32> { (0..count).map(|_| random()).collect() };
            let (query, answering) = (some(width), some(tokens * width));
            let mut layer = |channels: usize| {
                let weights: Vec<i8> = some(heads * channels * width).iter().map(|w| (w * 127.0) as i8).collect();
                let scale: Vec<f32> = some(heads * channels).iter().map(|s| 0.01 * (1.5 + s)).collect();
                (weights, scale, some(heads * channels))
            };
            let layers = [layer(depth.0), layer(depth.0), layer(depth.1)];
            let [q, k, v] = &layers;
            let to_heads = |(weights, scale, bias): &(Vec<i8>, Vec<f32>, Vec<f32>), channels: usize| {
                let weight = |head, line, column| weights[(head * channels + column) * width + line];
                Projection::new((heads, width, channels), (scale.clone(), bias.clone()), weight)
            };
            let back = |head, line, column| k.0[(head * depth.0 + line) * width + column];
            let back = Projection::new((heads, depth.0, width), (k.1.clone(), k.2.clone()), back);
            let projections = Arc::new([to_heads(q, depth.0), back, to_heads(v, depth.1)]);

            let project = |(weights, scale, bias): &(Vec<i8>, Vec<f32>, Vec<f32>), channel: usize, token: &[f32]| {
                let weights = &weights[channel * width..][..width];
                let sum: f64 = weights.iter().zip(token).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                sum * f64::from(scale[channel]) + f64::from(bias[channel])
            };
            let exact = |head: usize| -> Vec<f64> {
                let score = |token: &[f32]| -> f64 {
                    let channels = head * depth.0..(head + 1) * depth.0;
                    channels.map(|c| project(q, c, &query) * project(k, c, token)).sum()
                };
                let scores: Vec<f64> = answering.chunks(width).map(|token| (0.3 * score(token)).exp()).collect();
                let total: f64 = scores.iter().sum();
                let answer = |channel| -> f64 {
                    let values = answering.chunks(width).map(|token| project(v, channel, token));
                    scores.iter().zip(values).map(|(score, value)| score / total * value).sum()
                };
                (head * depth.1..(head + 1) * depth.1).map(answer).collect()
            };
            let expected: Vec<f64> = (0..heads).flat_map(exact).collect();

            for kernel in KernelChoice::ALL.into_iter().filter_map(KernelChoice::kernel) {
                let pool = crate::vision::int8::Pool::new(1).unwrap();
                let runtime = Arc::new(Runtime::new(kernel, pool));
                let projections = projections.clone();
                let op = AttentionPool { runtime, projections, heads, depth, tokens, scale: 0.3 };
                let inputs =
                    tvec!(Tensor::from_shape(&[1, width], &query), Tensor::from_shape(&[tokens, width], &answering));
                let mut model = TypedModel::default();
                let sources =
                    [[1, width], [tokens, width]].map(|shape| model.add_source("x", f32::fact(shape)).unwrap());
                let out = model.wire_node("pool", op, &sources).unwrap();
                model.select_output_outlets(&out).unwrap();
                let inputs = inputs.into_iter().map(|input| input.unwrap().into_tvalue()).collect();
                let out = model.into_runnable().unwrap().run(inputs).unwrap();
                let out = out[0].try_as_plain_ram().unwrap();
                for (value, exact) in out.as_slice::<f32>().unwrap().iter().zip(&expected) {
                    let off = (f64::from(*value) - exact).abs();
                    assert!(
                        off < 1e-4 * exact.abs().max(1.0),
                        "{}: {value} for {exact}, {tokens} tokens of {width}",
                        kernel.name
                    );
                }
            }
        }
    }
}
