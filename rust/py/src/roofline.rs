//! Measurements of this machine.
use crate::errors::{self, OrRaise};
use crate::process::watched;
use fastllm_kernels::buffer::OutOfMemory;
use fastllm_kernels::pool::Pool;
use fastllm_kernels::roofline::{self, Memory, Rate};
use fastllm_simd::Cpu;
use pyo3::prelude::*;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// The best and the median, per second.
type Pair = (f64, f64);

fn pair(rate: Rate) -> Pair {
    (rate.best, rate.median)
}

fn arguments(py: Python<'_>, isa: &str, seconds: f64) -> PyResult<(Cpu, Duration)> {
    let cpu = Cpu::by_name(isa).map_err(|e| errors::parameter(py, e))?;
    let time = Duration::try_from_secs_f64(seconds);
    Ok((cpu, time.map_err(|e| errors::parameter(py, format!("seconds = {seconds} is not allowed: {e}")))?))
}

/// Runs `work`, and stops it when a signal handler raises.
fn run<T: Send>(py: Python<'_>, work: impl FnOnce(&AtomicBool) -> T + Send) -> PyResult<T> {
    let cancel = AtomicBool::new(false);
    let (result, raised) = py.detach(|| watched(|| work(&cancel), &cancel));
    raised.map_or(Ok(()), Err)?;
    result.ok_or_else(|| errors::internal(py, "a measurement panicked"))
}

/// Dot products of bytes and fused multiply-adds of `threads` threads: operations per second, each measured for about `seconds`.
#[pyfunction]
pub fn measure_compute(py: Python<'_>, isa: &str, threads: usize, seconds: f64) -> PyResult<(Pair, Pair)> {
    let (cpu, time) = arguments(py, isa, seconds)?;
    run(py, |cancel| {
        let pool = Pool::new(threads);
        (pair(roofline::integer(cpu, &pool, time, cancel)), pair(roofline::float(cpu, &pool, time, cancel)))
    })
}

/// Bytes per second of a plain read of `bytes` bytes, for each of the numbers of threads, each measured for about `seconds`.
#[pyfunction]
#[allow(clippy::needless_pass_by_value, reason = "a Python list has no slice to borrow")]
pub fn measure_read(py: Python<'_>, isa: &str, threads: Vec<usize>, bytes: usize, seconds: f64) -> PyResult<Vec<Pair>> {
    let (cpu, time) = arguments(py, isa, seconds)?;
    let measured = run(py, |cancel| {
        let most = threads.iter().copied().max().unwrap_or(1);
        let memory = Memory::new(bytes, &Pool::new(most), cancel)?;
        Ok::<_, OutOfMemory>(threads.iter().map(|&n| pair(memory.read(cpu, &Pool::new(n), time, cancel))).collect())
    })?;
    measured.or_raise(py)
}
