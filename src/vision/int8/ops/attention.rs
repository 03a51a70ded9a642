//! Attention, `softmax(scale · q · kᵀ) · v` head by head, reading queries, keys and values where a linear layer left
//! them.

use tract_onnx::tract_hir::internal::*;

use super::BadRow;
use crate::vision::int8::attend::Attend;
use crate::vision::int8::kernels::float::Strided;
use crate::vision::int8::runtime::Runtime;

/// Where the heads of one operand lie: head `h`, token `t` begins at `starts[h] + t · stride`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heads {
    /// First value of each head's first token.
    pub starts: Vec<usize>,
    /// From one token to the next.
    pub stride: usize,
    /// Tokens.
    pub tokens: usize,
    /// Values a token has for one head.
    pub depth: usize,
}

impl Heads {
    fn head<'a>(&self, values: &'a [f32], head: usize) -> Strided<'a> {
        // Of a single token the stride may be 0.
        Strided { values: &values[self.starts[head]..], stride: self.stride.max(self.depth) }
    }
}

/// Inputs: the tensors that hold queries, keys and values, which may be one and the same. The output is a matrix of
/// `outer · tokens` rows of `inner · depth` values, heads counted `[outer][inner]`.
#[derive(Debug, Clone)]
pub struct Attention {
    /// Kernel and threads.
    pub runtime: Arc<Runtime>,
    /// Queries, keys, values.
    pub operands: [Heads; 3],
    /// Multiplied onto the products of queries and keys; above 0.
    pub scale: f32,
    /// Heads that lie beside each other in a row of the output.
    pub inner: usize,
    /// Shape of the output, as the graph wants it.
    pub shape: TVec<usize>,
}

impl PartialEq for Attention {
    fn eq(&self, other: &Self) -> bool {
        self.operands == other.operands
            && self.scale == other.scale
            && self.inner == other.inner
            && self.shape == other.shape
    }
}

impl Eq for Attention {}

impl Op for Attention {
    fn name(&self) -> StaticName {
        "AttentionInt8".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        let [q, k, v] = &self.operands;
        Ok(vec![format!(
            "{} heads, {} x {} tokens, depth {} and {}",
            q.starts.len(),
            q.tokens,
            k.tokens,
            q.depth,
            v.depth
        )])
    }

    op_as_typed_op!();
}

impl EvalOp for Attention {
    not_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let views = inputs.iter().map(|i| i.try_as_plain_ram()).collect::<TractResult<Vec<_>>>()?;
        let values = views.iter().map(|v| v.as_slice::<f32>()).collect::<TractResult<Vec<_>>>()?;
        let mut out = self.runtime.output(&self.shape)?;
        let mut view = out.try_as_plain_ram_mut()?;
        let [q, k, v] = &self.operands;
        let width = self.inner * v.depth;
        let Runtime { kernel, pool, .. } = &*self.runtime;
        let bad = BadRow::new();
        let attend = Attend::new(kernel, (q.tokens, k.tokens), (q.depth, v.depth), self.scale);
        pool.blocks(view.as_slice_mut::<f32>()?, width, (q.tokens, v.depth), |block| {
            let outer = block.rows().start / q.tokens;
            let at = outer * self.inner + block.columns().start / v.depth;
            let operands = [q.head(values[0], at), k.head(values[1], at), v.head(values[2], at)];
            if let Some(token) = attend.head(operands, block) {
                bad.set(outer * k.tokens + token);
            }
        });
        bad.check("AttentionInt8")?;
        self.runtime.give_back(inputs);
        Ok(tvec!(out.into_tvalue()))
    }
}

impl TypedOp for Attention {
    fn output_facts(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(f32::fact(&*self.shape)))
    }

    fn cost(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        let [q, k, v] = &self.operands;
        let products = q.starts.len() * q.tokens * k.tokens * (q.depth + v.depth);
        Ok(tvec!((Cost::FMA(i8::datum_type()), products.to_dim())))
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vision::int8::glue::MAX_LANES;
    use crate::vision::int8::kernels::pool::Pool;
    use crate::vision::int8::kernels::{Kernel, KernelChoice};

    fn kernels() -> impl Iterator<Item = Kernel> {
        KernelChoice::ALL.into_iter().filter_map(KernelChoice::kernel)
    }

    /// Queries, keys and values of one head, in rows that lie further apart than they are long, as those of one head among several do.
    #[derive(Clone)]
    struct Case {
        tokens: (usize, usize),
        depth: (usize, usize),
        /// Queries, keys, values.
        values: [Vec<f32>; 3],
        scale: f32,
    }

    /// Values between the rows, which must not matter.
    const APART: usize = 3;

    impl Case {
        fn new(tokens: (usize, usize), depth: (usize, usize)) -> Case {
            let mut state = 7u32;
            let mut some = |rows: usize, width: usize| -> Vec<f32> {
                let mut values = vec![f32::NAN; rows * (width + APART)];
                for value in values.chunks_exact_mut(width + APART).flat_map(|row| &mut row[..width]) {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    *value = 2.0 * ((state >> 8) as f32 / (1 << 23) as f32 - 1.0);
                }
                values
            };
            let values = [some(tokens.0, depth.0), some(tokens.1, depth.0), some(tokens.1, depth.1)];
            Case { tokens, depth, values, scale: 1.4 / (depth.0 as f32).sqrt() }
        }

        fn widths(&self) -> [usize; 3] {
            [self.depth.0, self.depth.0, self.depth.1]
        }

        fn row(&self, operand: usize, token: usize) -> &[f32] {
            let width = self.widths()[operand];
            &self.values[operand][token * (width + APART)..][..width]
        }

        fn exact(&self) -> Vec<f64> {
            let mut out = vec![];
            for t in 0..self.tokens.0 {
                let score = |a: usize| {
                    let products =
                        self.row(0, t).iter().zip(self.row(1, a)).map(|(q, k)| f64::from(*q) * f64::from(*k));
                    f64::from(self.scale) * products.sum::<f64>()
                };
                let scores: Vec<f64> = (0..self.tokens.1).map(score).collect();
                let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let scores: Vec<f64> = scores.iter().map(|score| (score - highest).exp()).collect();
                let total: f64 = scores.iter().sum();
                for c in 0..self.depth.1 {
                    let weighed = scores.iter().enumerate().map(|(a, score)| score * f64::from(self.row(2, a)[c]));
                    out.push(weighed.sum::<f64>() / total);
                }
            }
            out
        }

        fn computed(&self, kernel: Kernel, threads: usize) -> TractResult<Vec<f32>> {
            let heads = |operand: usize, tokens: usize| {
                let depth = self.widths()[operand];
                Heads { starts: vec![0], stride: depth + APART, tokens, depth }
            };
            let attention = Attention {
                runtime: Arc::new(Runtime::new(kernel, Pool::new(threads)?)),
                operands: [heads(0, self.tokens.0), heads(1, self.tokens.1), heads(2, self.tokens.1)],
                scale: self.scale,
                inner: 1,
                shape: tvec!(self.tokens.0, self.depth.1),
            };
            let mut model = TypedModel::default();
            let mut sources = vec![];
            for (name, values) in ["q", "k", "v"].iter().zip(&self.values) {
                sources.push(model.add_source(*name, f32::fact([values.len()]))?);
            }
            let out = model.wire_node("attention", attention, &sources)?;
            model.select_output_outlets(&out)?;
            let inputs = self.values.iter().map(|values| tensor1(values).into_tvalue()).collect();
            let out = model.into_runnable()?.run(inputs)?;
            Ok(out[0].try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
        }
    }

    const SHAPES: [((usize, usize), (usize, usize)); 9] = [
        ((1, 1), (1, 1)),
        ((3, 5), (8, 20)),
        ((50, 50), (64, 64)),
        ((6, 65), (20, 17)),
        ((2, 130), (3, 70)),
        ((70, 150), (65, 40)),
        ((33, 40), (65, 150)),
        ((257, 257), (64, 64)),
        ((31, 64), (16, 16)),
    ];

    #[test]
    fn values_are_weighed_by_the_softmax_of_the_scores() {
        for (tokens, depth) in SHAPES {
            let case = Case::new(tokens, depth);
            let exact = case.exact();
            for kernel in kernels() {
                let out = case.computed(kernel, 1).unwrap();
                assert_eq!(out.len(), exact.len());
                let mut squares = 0.0;
                for (value, exact) in out.iter().zip(&exact) {
                    let off = f64::from(*value) - exact;
                    // Values lie within 2, and each operand is rounded to less than a hundredth.
                    assert!(off.abs() < 0.1, "{}: {value} for {exact}, {tokens:?} {depth:?}", kernel.name);
                    squares += off * off;
                }
                let deviation = (squares / exact.len() as f64).sqrt();
                assert!(deviation < 0.013, "{}: {deviation} with {tokens:?} {depth:?}", kernel.name);
            }
        }
    }

    #[test]
    fn kernels_and_threads_agree() {
        for (tokens, depth) in SHAPES {
            let case = Case::new(tokens, depth);
            let best = case.computed(KernelChoice::best(), 1).unwrap();
            for kernel in kernels() {
                for threads in 1..3 {
                    let out = case.computed(kernel, threads).unwrap();
                    // Without fused operations a level is another here or there, and what is left behind the last whole register
                    // is finished without.
                    let reach = match (kernel.name, depth.1 % MAX_LANES) {
                        ("portable", _) => 0.02,
                        (_, 0) => 0.0,
                        _ => 1e-6,
                    };
                    let agree = out.iter().zip(&best).all(|(a, b)| (a - b).abs() <= reach);
                    assert!(agree, "{} with {threads} threads, {tokens:?} {depth:?}", kernel.name);
                }
            }
        }
    }

    #[test]
    fn a_score_far_above_the_others_takes_its_value_alone() {
        let mut case = Case::new((5, 70), (64, 33));
        case.scale = 100.0;
        for kernel in kernels() {
            for (value, exact) in case.computed(kernel, 1).unwrap().iter().zip(case.exact()) {
                assert!((f64::from(*value) - exact).abs() < 0.009, "{}: {value} for {exact}", kernel.name);
            }
        }
    }

    /// As biases of a layer make it, some larger than all else.
    #[test]
    fn what_all_keys_or_values_have_in_common_costs_no_accuracy() {
        for (operand, width) in [(1, 64), (2, 20)] {
            let mut case = Case::new((33, 65), (64, 20));
            for row in case.values[operand].chunks_exact_mut(width + APART) {
                row[..width].iter_mut().enumerate().for_each(|(i, value)| *value += [0.0, 100.0, -30.0][i % 3]);
            }
            for kernel in kernels() {
                for (value, exact) in case.computed(kernel, 1).unwrap().iter().zip(case.exact()) {
                    assert!((f64::from(*value) - exact).abs() < 0.05, "{}: {value} for {exact}", kernel.name);
                }
            }
        }
    }

    #[test]
    fn zeros_weigh_all_values_alike() {
        for zeros in [0, 1] {
            let mut case = Case::new((3, 37), (64, 20));
            case.values[zeros].fill(0.0);
            case.values[2].iter_mut().step_by(20 + APART).for_each(|value| *value = 0.0);
            for kernel in kernels() {
                for (value, exact) in case.computed(kernel, 1).unwrap().iter().zip(case.exact()) {
                    assert!((f64::from(*value) - exact).abs() < 0.004, "{}: {value} for {exact}", kernel.name);
                }
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_an_error_wherever_it_stands() {
        for (operand, width) in [64, 64, 20].into_iter().enumerate() {
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in [0, 16 * (width + APART) + 11, 32 * (width + APART) + width - 1] {
                    let mut case = Case::new((33, 33), (64, 20));
                    case.values[operand][at] = value;
                    for kernel in kernels() {
                        let error = format!("{:#}", case.computed(kernel, 1).unwrap_err());
                        let row = format!("AttentionInt8: row {} of the input holds", at / (width + APART));
                        assert!(error.contains(&row), "{}: {error}", kernel.name);
                    }
                }
            }
        }
        let mut case = Case::new((4, 4), (8, 8));
        case.values[..2].iter_mut().flatten().for_each(|value| *value *= 1e30);
        for kernel in kernels() {
            let error = format!("{:#}", case.computed(kernel, 1).unwrap_err());
            assert!(error.contains("not finite"), "scores beyond all floats, {}: {error}", kernel.name);
        }
    }
}
