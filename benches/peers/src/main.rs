//! Times one ONNX image tower in stock tract or in rten: `peers tract|rten FILE SIZE ITERATIONS` prints one JSON object
//! with the embedding of a picture (values from standard input) and the time of each run. tract runs on one thread, rten on
//! as many as its own variable RTEN_NUM_THREADS says.

use std::error::Error;
use std::io::Read;
use std::time::Instant;

use tract_onnx::prelude::*;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [engine, file, size, iterations] = &arguments[..] else {
        return Err("peers tract|rten FILE SIZE ITERATIONS < VALUES".into());
    };
    let (size, iterations) = (size.parse()?, iterations.parse()?);
    let picture = picture(size)?;
    let (embedding, times) = match engine.as_str() {
        "tract" => tract(file, &picture, size, iterations)?,
        "rten" => rten(file, &picture, size, iterations)?,
        other => return Err(format!("{other} is no engine of this program").into()),
    };
    println!("{}", serde_json::json!({ "embedding": embedding, "ms": times }));
    Ok(())
}

/// Little-endian f32 values from standard input.
fn picture(size: usize) -> Result<Vec<f32>, Box<dyn Error>> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes)?;
    if bytes.len() != 3 * size * size * 4 {
        return Err(format!("{} bytes are not a picture of {size} x {size}", bytes.len()).into());
    }
    Ok(bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect())
}

type Timed = Result<(Vec<f32>, Vec<f64>), Box<dyn Error>>;

/// Runs `once` one time for nothing and then `iterations` times.
fn timed(iterations: usize, mut once: impl FnMut() -> Result<Vec<f32>, Box<dyn Error>>) -> Timed {
    let embedding = once()?;
    let mut times = Vec::new();
    for _ in 0..iterations {
        let started = Instant::now();
        once()?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok((embedding, times))
}

fn tract(file: &str, picture: &[f32], size: usize, iterations: usize) -> Timed {
    let plan = tract_onnx::onnx()
        .model_for_path(file)?
        .with_input_fact(0, f32::fact([1, 3, size, size]).into())?
        .into_optimized()?
        .into_runnable()?;
    timed(iterations, || {
        let input = Tensor::from_shape(&[1, 3, size, size], picture)?;
        let output = plan.run(tvec!(input.into_tvalue()))?;
        Ok(output[0].try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
    })
}

fn rten(file: &str, picture: &[f32], size: usize, iterations: usize) -> Timed {
    let model = rten::Model::load_file(file)?;
    timed(iterations, || {
        let input = rten::Value::from_shape(&[1, 3, size, size], picture.to_vec())?;
        let output = model.run_one(input.into(), None)?;
        Ok(output.into_tensor::<f32>().ok_or("the output is not float")?.into_data())
    })
}
