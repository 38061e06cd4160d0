//! From a file to a model in memory.
//!
//! Tensors are read with positional reads and packed at once: nothing of the file is needed, or mapped, afterwards. Large models may be
//! packed into a file of our own instead, see [`packed_cache`].
use crate::ModelError;
use crate::arch;
use crate::config::Config;
use crate::error::invalid;
use crate::kv_cache::CacheShape;
use crate::packed_cache::{self, CacheSettings, Outcome, Packed, Verification};
use crate::ropes::RopeTables;
use crate::scratch::Widths;
use crate::transformer::MAX_ROWS;
use crate::weights::{Declared, Load, Loaded, MatrixInfo, Reads, RowsOf, VectorInfo, Weights};
use fastllm_gguf::GgufFile;
use fastllm_kernels::attention::CacheType;
use fastllm_kernels::buffer::{AlignedVec, OutOfMemory};
use fastllm_kernels::linear::{Linear, PackError, WeightType};
use fastllm_kernels::pool::{Pool, default_threads};
use fastllm_simd::Cpu;
use fastllm_simd::half::{bf16_to_f32, f16_to_f32, f32_to_f16};

/// How to load and run a model.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The instruction set: a name or "auto".
    pub isa: String,
    /// Threads for single tokens; by default what the process may use, at most the physical cores.
    pub threads: Option<usize>,
    /// Threads for prompts; by default as many as `threads`.
    pub prefill_threads: Option<usize>,
    /// How keys and values are stored.
    pub cache_type: CacheType,
    /// Most positions of a sequence; by default what the model was trained for.
    pub context_length: Option<usize>,
    /// Where packed weights are kept for the next load; by default nowhere.
    pub packed_cache: Option<CacheSettings>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions {
            isa: "auto".to_owned(),
            threads: None,
            prefill_threads: None,
            cache_type: CacheType::F16,
            context_length: None,
            packed_cache: None,
        }
    }
}

/// More threads than any machine has.
const MOST_THREADS: usize = 1024;

fn check(what: &str, value: Option<usize>, most: usize) -> Result<(), ModelError> {
    match value {
        Some(n) if !(1..=most).contains(&n) => Err(ModelError::Option(format!("{what} is {n}, but must be 1 to {most}"))),
        _ => Ok(()),
    }
}

/// Where the packed weights of a model came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightsFrom {
    /// The model file; they are in memory of their own.
    ModelFile,
    /// The model file; they were written into the cache, and taken from there.
    NewCache,
    /// The cache.
    Cache,
}

/// A model: immutable, shared by any number of contexts.
#[derive(Debug)]
pub struct Model {
    pub(crate) config: Config,
    pub(crate) weights: Weights<Loaded>,
    pub(crate) ropes: RopeTables,
    pub(crate) cpu: Cpu,
    threads: usize,
    prefill_threads: usize,
    cache_type: CacheType,
    context_length: usize,
    weight_bytes: usize,
    weights_from: WeightsFrom,
    /// Of weights from the cache: their comparison with checksums.
    verification: Option<Verification>,
    pub(crate) widths: Widths,
}

impl Model {
    /// Loads a model; `progress(done, total)` hears of bytes packed and may stop it by returning `false`.
    ///
    /// # Errors
    /// If the file is damaged, not supported or too large for the memory, or an option is out of range.
    pub fn load(file: &GgufFile, options: &LoadOptions, progress: &mut dyn FnMut(usize, usize) -> bool) -> Result<Model, ModelError> {
        check("threads", options.threads, MOST_THREADS)?;
        check("prefill_threads", options.prefill_threads, MOST_THREADS)?;
        check("context_length", options.context_length, 1 << 30)?;
        let cpu = Cpu::by_name(&options.isa).map_err(|e| ModelError::Option(e.to_string()))?;
        let (config, declared) = arch::declare(file, options.context_length)?;
        let threads = options.threads.unwrap_or_else(default_threads);
        let weight_bytes = declared.bytes();
        // Rows come in panels of 16: a hostile file of single rows would become 16 times as large.
        let most = file.total_bytes().saturating_mul(3).saturating_add(16 << 20);
        if weight_bytes as u64 > most {
            return Err(ModelError::Unsupported(format!(
                "the weights would take {weight_bytes} bytes of memory, far more than the {} bytes of the file",
                file.total_bytes()
            )));
        }
        let pool = Pool::new(threads);
        let mut reader = Reader { file, pool: &pool, packed: None, done: 0, total: weight_bytes, reports: true, progress };
        let weights_from = match &options.packed_cache {
            Some(settings) => reader.use_cache(settings, &declared)?,
            None => WeightsFrom::ModelFile,
        };
        let weights = declared.load(&mut reader)?;
        Ok(Model {
            ropes: RopeTables::new(&config, weights.rope_divisors.as_deref())?,
            weights,
            cpu,
            threads,
            prefill_threads: options.prefill_threads.unwrap_or(threads),
            widths: Widths::new(&config, &declared),
            cache_type: options.cache_type,
            context_length: options.context_length.unwrap_or(config.context_length),
            weight_bytes,
            weights_from,
            verification: reader.packed.take().and_then(Packed::verify),
            config,
        })
    }

    /// The architecture.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The weights.
    pub fn weights(&self) -> &Weights<Loaded> {
        &self.weights
    }

    /// The instruction set.
    pub fn cpu(&self) -> Cpu {
        self.cpu
    }

    /// Threads for single tokens.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Threads for prompts.
    pub fn prefill_threads(&self) -> usize {
        self.prefill_threads
    }

    /// How keys and values are stored.
    pub fn cache_type(&self) -> CacheType {
        self.cache_type
    }

    /// Most positions of a sequence.
    pub fn context_length(&self) -> usize {
        self.context_length
    }

    /// Bytes of the KV cache of one sequence that fills the context.
    ///
    /// # Errors
    /// If the model's heads do not fit a cache.
    pub fn sequence_bytes(&self) -> Result<usize, ModelError> {
        Ok(CacheShape::new(&self.config, self.cache_type)?.bytes(self.context_length, MAX_ROWS))
    }

    /// Bytes of weights that a pass over `rows` rows reads: all matrices but an embedding of its own, and of experts at most those that
    /// so many tokens choose.
    pub fn bytes_read(&self, rows: usize) -> usize {
        let bytes = |(m, reads): (&Linear, Reads)| match reads {
            Reads::All => m.matrices() * m.matrix_bytes(),
            Reads::PerRow(matrices) => m.matrices().min(matrices * rows) * m.matrix_bytes(),
        };
        let w = &self.weights;
        let layers: usize = w.layers.iter().flat_map(|l| l.matrices().into_iter().map(bytes)).sum();
        layers + w.output.as_ref().unwrap_or(&w.embedding).matrix_bytes()
    }

    /// Where the packed weights came from.
    pub fn weights_from(&self) -> WeightsFrom {
        self.weights_from
    }

    /// Refuses to go on with weights from the cache that are known to be damaged.
    ///
    /// # Errors
    /// If they are.
    pub(crate) fn check_cache(&self) -> Result<(), ModelError> {
        match self.verification.as_ref().and_then(Verification::damaged) {
            Some(path) => Err(ModelError::DamagedCache { path: path.clone() }),
            None => Ok(()),
        }
    }

    /// Whether all weights from the cache were compared with their checksums; so are those that came from elsewhere.
    pub fn is_verified(&self) -> bool {
        self.verification.as_ref().is_none_or(Verification::is_done)
    }

    /// Bytes of the packed matrices.
    pub fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }
}

/// An empty vector with room for `len` elements, as many as a file asks for.
fn try_vec<T>(len: usize) -> Result<Vec<T>, OutOfMemory> {
    let mut vec = Vec::new();
    vec.try_reserve_exact(len).map_err(|_| OutOfMemory { bytes: len.saturating_mul(size_of::<T>()) })?;
    Ok(vec)
}

struct Reader<'a> {
    file: &'a GgufFile,
    pool: &'a Pool,
    /// Where matrices are taken from, as far as they are there.
    packed: Option<Packed>,
    done: usize,
    total: usize,
    /// Whether `progress` hears of matrices: not twice of the same.
    reports: bool,
    progress: &'a mut dyn FnMut(usize, usize) -> bool,
}

impl Reader<'_> {
    /// What each of the matrices is multiplied by: NVFP4 files may have a tensor `.scale` beside `.weight`, of one float for all of the
    /// tensor or of one for each expert. `None` if there is no such tensor.
    fn factors(&self, m: &MatrixInfo) -> Result<Option<Vec<f32>>, ModelError> {
        let mut factors = try_vec(m.sources.len())?;
        factors.resize(m.sources.len(), 1.0);
        let mut found = false;
        for (factor, source) in factors.iter_mut().zip(&m.sources) {
            let scale = source.tensor.name.strip_suffix("weight").and_then(|prefix| self.file.tensor(&format!("{prefix}scale")));
            let Some(scale) = scale else { continue };
            let (count, rows) = (scale.elements(), source.tensor.dims.iter().skip(1).product::<u64>());
            if scale.dtype.name() != "f32" {
                return Err(ModelError::Unsupported(format!("the tensor {} has the type {}, but must be f32", scale.name, scale.dtype)));
            }
            if count == 0 || !rows.is_multiple_of(count) || count > 1 && source.tensor.dims.get(2) != Some(&count) {
                return invalid!("the tensor {} has {count} scales for weights of the shape {:?}", scale.name, source.tensor.dims);
            }
            let mut bytes = [0; 4];
            self.file.read_at(scale, source.first as u64 / (rows / count) * 4, &mut bytes)?;
            *factor = f32::from_le_bytes(bytes);
            found = true;
        }
        Ok(found.then_some(factors))
    }

    /// Packs the matrices of `rows` x `cols` that lie in `sources` as they are.
    fn pack(&self, m: &[RowsOf], kind: WeightType, rows: usize, cols: usize) -> Result<Linear, ModelError> {
        let Some(row_bytes) = kind.file_row_bytes(cols) else {
            return invalid!("rows of {cols} are not whole blocks of {}", kind.name());
        };
        let read = |row: usize, out: &mut [u8]| {
            let source = &m[row / rows];
            let at = (source.first + row % rows) * row_bytes;
            self.file.read_at(&source.tensor, at as u64, out)
        };
        Linear::pack(kind, (rows, cols), m.len(), self.pool, read).map_err(|e| match e {
            PackError::OutOfMemory(e) => ModelError::OutOfMemory(e),
            PackError::Read(e) => ModelError::File(e),
        })
    }

    /// Packs the transposes of matrices that lie in the file as `file_kind`.
    fn pack_transposed(&self, m: &MatrixInfo, file_kind: WeightType) -> Result<Linear, ModelError> {
        let mut data = AlignedVec::<f32>::try_zeroed(m.sources.len() * m.rows * m.cols)?;
        let mut row = try_vec(m.rows)?;
        row.resize(m.rows, 0.0);
        for (source, out) in m.sources.iter().zip(data.chunks_exact_mut(m.rows * m.cols)) {
            let stored = self.pack(std::slice::from_ref(source), file_kind, m.cols, m.rows)?;
            for i in 0..m.cols {
                stored.row(i, &mut row);
                for (x, y) in row.iter().zip(out[i..].iter_mut().step_by(m.cols)) {
                    *y = *x;
                }
            }
        }
        // Decoded floats that came from 16 bits fit into them again.
        let write = |first: usize, out: &mut [u8]| {
            let src = &data[first * m.cols..];
            let bits = out.as_chunks_mut::<2>().0.iter_mut().zip(src);
            match m.kind {
                WeightType::F16 => bits.for_each(|(o, x)| *o = f32_to_f16(*x).to_le_bytes()),
                WeightType::Bf16 => bits.for_each(|(o, x)| *o = ((x.to_bits() >> 16) as u16).to_le_bytes()),
                _ => out.as_chunks_mut::<4>().0.iter_mut().zip(src).for_each(|(o, x)| *o = x.to_le_bytes()),
            }
            Ok::<_, std::convert::Infallible>(())
        };
        Linear::pack(m.kind, (m.rows, m.cols), m.sources.len(), self.pool, write).map_err(|e| match e {
            PackError::OutOfMemory(e) => ModelError::OutOfMemory(e),
            PackError::Read(never) => match never {},
        })
    }

    /// Finds the weights in the cache, or packs them into it.
    fn use_cache(&mut self, settings: &CacheSettings, weights: &Weights<Declared>) -> Result<WeightsFrom, ModelError> {
        let (file, pool) = (self.file, self.pool);
        Ok(match packed_cache::open(settings, file, weights, pool, &mut |m| self.pack_and_report(m))? {
            Outcome::Found(packed) => {
                self.packed = Some(packed);
                WeightsFrom::Cache
            }
            Outcome::Written(packed) => {
                (self.packed, self.reports) = (Some(packed), false);
                WeightsFrom::NewCache
            }
            Outcome::Nothing => {
                self.done = 0;
                WeightsFrom::ModelFile
            }
        })
    }

    /// Packs matrices from the model file, without their factors.
    fn pack_and_report(&mut self, m: &MatrixInfo) -> Result<Linear, ModelError> {
        let packed = match m.transposed {
            None => self.pack(&m.sources, m.kind, m.rows, m.cols)?,
            Some(file_kind) => self.pack_transposed(m, file_kind)?,
        };
        self.report(m)?;
        Ok(packed)
    }

    fn report(&mut self, m: &MatrixInfo) -> Result<(), ModelError> {
        if !self.reports {
            return Ok(());
        }
        self.done += m.bytes();
        if (self.progress)(self.done, self.total) { Ok(()) } else { Err(ModelError::Cancelled) }
    }
}

impl Load for Reader<'_> {
    fn matrix(&mut self, m: &MatrixInfo) -> Result<Linear, ModelError> {
        let packed = match &self.packed {
            Some(packed) => packed.matrix(m, self.pool)?,
            None => None,
        };
        let packed = match packed {
            Some(packed) => {
                self.report(m)?;
                packed
            }
            None => self.pack_and_report(m)?,
        };
        Ok(match self.factors(m)? {
            Some(factors) => packed.scaled(factors),
            None => packed,
        })
    }

    fn vector(&mut self, v: &VectorInfo) -> Result<Vec<f32>, ModelError> {
        let name = v.tensor.dtype.name();
        let size = if name == "f32" { 4 } else { 2 };
        let mut bytes = try_vec(v.len.saturating_mul(size))?;
        bytes.resize(v.len * size, 0);
        self.file.read_at(&v.tensor, (v.first * size) as u64, &mut bytes)?;
        let halves = || bytes.as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b));
        let mut floats = try_vec(v.len)?;
        match name {
            "f32" => floats.extend(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b))),
            "f16" => floats.extend(halves().map(f16_to_f32)),
            "bf16" => floats.extend(halves().map(bf16_to_f32)),
            other => return invalid!("the tensor {} has the type {other}", v.tensor.name),
        }
        Ok(floats)
    }
}
