//! Makes ONNX models in the form of our bundles, with random weights, in f32 and in int8.

use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TypeProto, ValueInfoProto,
    type_proto,
};

/// A graph being written.
pub struct Writer {
    graph: GraphProto,
    int8: bool,
    state: u32,
}

/// An attribute's value.
pub enum Value<'a> {
    Int(i64),
    Float(f32),
    Ints(&'a [i64]),
}

impl Writer {
    /// A graph of one image input; weights are stored as int8 if `int8`. Equal calls draw equal random numbers.
    pub fn new(int8: bool) -> Writer {
        let float = |name: &str| ValueInfoProto {
            name: name.to_owned(),
            r#type: Some(TypeProto {
                value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                    elem_type: DataType::Float as i32,
                    ..Default::default()
                })),
                ..Default::default()
            }),
            ..Default::default()
        };
        let graph = GraphProto { input: vec![float("image")], output: vec![float("embedding")], ..Default::default() };
        Writer { graph, int8, state: 0x2545_F491 }
    }

    /// A number of deviation 1, nearly normal: the sum of four even ones.
    pub fn random(&mut self) -> f32 {
        let mut sum = 0.0;
        for _ in 0..4 {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 17;
            self.state ^= self.state << 5;
            sum += self.state as f32 / u32::MAX as f32 - 0.5;
        }
        sum * 3f32.sqrt()
    }

    /// Random numbers of the given deviation.
    pub fn randoms(&mut self, count: usize, deviation: f32) -> Vec<f32> {
        (0..count).map(|_| self.random() * deviation).collect()
    }

    fn store(&mut self, dims: &[usize], data_type: DataType, raw_data: Vec<u8>) -> String {
        let name = format!("c{}", self.graph.initializer.len());
        self.graph.initializer.push(TensorProto {
            dims: dims.iter().map(|d| *d as i64).collect(),
            data_type: data_type as i32,
            raw_data,
            name: name.clone(),
            ..Default::default()
        });
        name
    }

    /// A constant.
    pub fn floats(&mut self, dims: &[usize], values: &[f32]) -> String {
        assert_eq!(dims.iter().product::<usize>(), values.len());
        self.store(dims, DataType::Float, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// A constant of shapes or indices.
    pub fn ints(&mut self, dims: &[usize], values: &[i64]) -> String {
        self.store(dims, DataType::Int64, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// A weight whose output channels are counted by `axis`.
    pub fn weight(&mut self, dims: &[usize], axis: usize, values: &[f32]) -> String {
        if !self.int8 {
            return self.floats(dims, values);
        }
        let inner: usize = dims[axis + 1..].iter().product();
        let channel = |i: usize| i / inner % dims[axis];
        let mut scale = vec![1e-12f32; dims[axis]];
        values.iter().enumerate().for_each(|(i, v)| scale[channel(i)] = scale[channel(i)].max(v.abs() / 127.0));
        let quantised = values.iter().enumerate().map(|(i, v)| (v / scale[channel(i)]).round() as i8 as u8).collect();
        let quantised = self.store(dims, DataType::Int8, quantised);
        let scale = self.floats(&[dims[axis]], &scale);
        self.op("DequantizeLinear", &[&quantised, &scale], &[("axis", Value::Int(axis as i64))])
    }

    /// An operator of one output.
    pub fn op(&mut self, op_type: &str, inputs: &[&str], attributes: &[(&str, Value)]) -> String {
        let name = format!("n{}", self.graph.node.len());
        let attribute = attributes.iter().map(|(name, value)| {
            let named = AttributeProto { name: (*name).to_owned(), ..Default::default() };
            match *value {
                Value::Int(i) => AttributeProto { i, r#type: AttributeType::Int as i32, ..named },
                Value::Float(f) => AttributeProto { f, r#type: AttributeType::Float as i32, ..named },
                Value::Ints(v) => AttributeProto { ints: v.to_vec(), r#type: AttributeType::Ints as i32, ..named },
            }
        });
        self.graph.node.push(NodeProto {
            op_type: op_type.to_owned(),
            input: inputs.iter().map(|i| (*i).to_owned()).collect(),
            output: vec![name.clone()],
            name: name.clone(),
            attribute: attribute.collect(),
            ..Default::default()
        });
        name
    }

    /// `x · W + b` with random weights of the given deviation.
    pub fn linear(&mut self, x: &str, (k, n): (usize, usize), deviation: f32) -> String {
        let weight = self.randoms(k * n, deviation);
        self.linear_of(x, (k, n), &weight)
    }

    /// `x · W + b` with a random bias.
    pub fn linear_of(&mut self, x: &str, (k, n): (usize, usize), weight: &[f32]) -> String {
        let weight = self.weight(&[k, n], 1, weight);
        let bias = self.randoms(n, 0.02);
        let bias = self.floats(&[n], &bias);
        let y = self.op("MatMul", &[x, &weight], &[]);
        self.op("Add", &[&y, &bias], &[])
    }

    /// A convolution with a random kernel and bias: square, with equal strides and padding.
    pub fn conv(&mut self, x: &str, shape: [usize; 4], stride: i64, pad: i64, group: i64) -> String {
        let fan = (shape[1] * shape[2] * shape[3]) as f32;
        let weight = self.randoms(shape.iter().product(), (2.0 / fan).sqrt());
        let weight = self.weight(&shape, 0, &weight);
        let bias = self.randoms(shape[0], 0.1);
        let bias = self.floats(&[shape[0]], &bias);
        let attributes = [
            ("kernel_shape", Value::Ints(&[shape[2] as i64, shape[3] as i64])),
            ("strides", Value::Ints(&[stride, stride])),
            ("pads", Value::Ints(&[pad; 4])),
            ("group", Value::Int(group)),
        ];
        self.op("Conv", &[x, &weight, &bias], &attributes)
    }

    /// The model, whose output is `last`.
    pub fn finish(mut self, last: &str) -> ModelProto {
        self.graph.node.push(NodeProto {
            op_type: "Identity".to_owned(),
            input: vec![last.to_owned()],
            output: vec!["embedding".to_owned()],
            name: "embedding".to_owned(),
            ..Default::default()
        });
        ModelProto {
            graph: Some(self.graph),
            opset_import: vec![OperatorSetIdProto { version: 20, ..Default::default() }],
            ..Default::default()
        }
    }
}
