//! Writes small synthetic seed corpora for the targets `gguf` and `model_load`: `cargo run --bin seeds`, in this folder.

#[allow(dead_code, reason = "shared with the tests of the model")]
#[path = "../../rust/model/tests/common/small_models.rs"]
mod small_models;

use std::fs;
use std::path::Path;

use fastllm_gguf::{DType, OwnedValue, ValueType, Writer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    model_seeds()?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/gguf");
    fs::create_dir_all(&folder)?;
    let save = |name: &str, writer: &Writer| -> Result<(), Box<dyn std::error::Error>> {
        let mut file = Vec::new();
        writer.write(&mut file)?;
        Ok(fs::write(folder.join(name), file)?)
    };
    save("empty", &Writer::new())?;
    save("aligned", Writer::new().alignment(64).add("t", &[1], DType::F32, vec![0; 4]).add("u", &[1], DType::I8, vec![0]))?;
    let mut values = Writer::new();
    values.set("u8", 1u8).set("i8", -1i8).set("u16", 1u16).set("i16", -1i16).set("u32", 1u32).set("i32", -1i32);
    values.set("u64", 1u64).set("i64", -1i64).set("f32", 1f32).set("f64", 1f64).set("bool", true).set("string", "text");
    save("scalars", &values)?;
    let nested = OwnedValue::Array(ValueType::Array, vec![[1u8, 2].as_slice().into(), ["a", ""].as_slice().into()]);
    let mut arrays = Writer::new();
    arrays
        .set("tokens", ["a", "b"].as_slice())
        .set("scores", [0.0f32, 1.0].as_slice())
        .set("types", [1i32, 3].as_slice())
        .set("nested", nested);
    save("arrays", &arrays)?;
    for dtype in DType::ALL {
        let bytes = usize::try_from(2 * dtype.block_bytes())?;
        save(dtype.name(), Writer::new().add("t", &[dtype.block_size(), 2], dtype, vec![0; bytes]))?;
    }
    println!("{} seeds in {}", fs::read_dir(&folder)?.count(), folder.display());
    Ok(())
}

/// Models with every structure, and every type of weights.
fn model_seeds() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/model_load");
    fs::create_dir_all(&folder)?;
    let models = [("dense", small_models::dense()), ("experts", small_models::experts()), ("k-quants", small_models::k_quants())];
    for (name, writer) in models.into_iter().chain(small_models::every_type()) {
        fs::write(folder.join(name), small_models::bytes(&writer))?;
    }
    println!("{} seeds in {}", fs::read_dir(&folder)?.count(), folder.display());
    Ok(())
}
