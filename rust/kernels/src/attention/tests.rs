//! Agreement with an f64 oracle, and bit-identity over instruction sets, row tiles, prefill chunkings, context splits and page tables.
use super::*;
use fastllm_simd::Cpu;
use std::ops::Range;

mod speed;

/// A small xorshift generator.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// About normal, variance 1.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| (self.next() >> 40) as f32 / (1u64 << 24) as f32).sum::<f32>() - 6.0
    }
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Pages next to each other, in any order.
struct Pages {
    layout: PageLayout,
    lines: Vec<Line>,
    table: Vec<usize>,
}

impl Pages {
    fn new(layout: PageLayout, count: usize, reversed: bool) -> Self {
        let mut pages = Pages { layout, lines: vec![Line([0xff; 64]); count * layout.bytes() / 64], table: (0..count).collect() };
        if reversed {
            pages.table.reverse();
        }
        for page in 0..count {
            layout.clear(pages.page_mut(page));
        }
        pages
    }

    fn page_mut(&mut self, page: usize) -> &mut [u8] {
        let at = self.table[page] * self.layout.bytes();
        &mut bytemuck::cast_slice_mut(&mut self.lines)[at..at + self.layout.bytes()]
    }

    fn all(&self) -> Vec<&[u8]> {
        let bytes: &[u8] = bytemuck::cast_slice(&self.lines);
        self.table.iter().map(|&page| &bytes[page * self.layout.bytes()..][..self.layout.bytes()]).collect()
    }

    /// Writes positions `at` in steps of at most `step`.
    fn write(&mut self, cpu: Cpu, at: Range<usize>, step: usize, keys: &[f32], values: &[f32]) {
        let (layout, mut from) = (self.layout, at.start);
        while from < at.end {
            let count = step.min(PAGE - from % PAGE).min(at.end - from);
            let (k, v) = (&keys[from * layout.dim_k()..], &values[from * layout.dim_v()..]);
            let (k, v) = (Strided { data: k, stride: layout.dim_k() }, Strided { data: v, stride: layout.dim_v() });
            layout.write(cpu, self.page_mut(from / PAGE), from % PAGE, count, k, v);
            from += count;
        }
    }
}

#[derive(Clone)]
struct Case {
    dims: (usize, usize),
    group: usize,
    context: usize,
    tokens: usize,
    softcap: Option<f32>,
    window: Option<usize>,
    sinks: bool,
}

impl Case {
    fn new(dims: (usize, usize), group: usize, context: usize, tokens: usize) -> Self {
        Case { dims, group, context, tokens, softcap: None, window: None, sinks: false }
    }

    fn attention(&self, cache_type: CacheType) -> Attention {
        let layout = PageLayout::new(cache_type, self.dims.0, self.dims.1).unwrap();
        Attention { layout, scale: 1.0 / (self.dims.0 as f32).sqrt(), softcap: self.softcap, window: self.window }
    }

    fn sink(&self, row: usize) -> Option<f32> {
        self.sinks.then(|| 0.5 + (row % self.group) as f32)
    }

    fn position(&self, row: usize) -> usize {
        self.context - self.tokens + row / self.group
    }
}

struct Data {
    q: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Data {
    fn new(case: &Case) -> Self {
        let (r, (dim_k, dim_v)) = (&mut Rng(0x9e37_79b9_7f4a_7c15), case.dims);
        // Keys get a few large channels, as real ones have.
        let keys = (0..case.context * dim_k).map(|i| r.normal() * if i % dim_k % 23 == 5 { 4.0 } else { 1.0 }).collect();
        let values = (0..case.context * dim_v).map(|_| r.normal()).collect();
        Data { q: (0..case.tokens * case.group * dim_k).map(|_| r.normal()).collect(), keys, values }
    }

    fn pages(&self, case: &Case, cache_type: CacheType, reversed: bool) -> Pages {
        let mut pages = Pages::new(case.attention(cache_type).layout, case.context.div_ceil(PAGE), reversed);
        pages.write(Cpu::best(), 0..case.context, PAGE, &self.keys, &self.values);
        pages
    }
}

/// Rows in steps of `step` tokens; the context in one go, or every chunk on its own and the triples folded afterwards.
/// Pages below the window of each step are absent.
fn run(cpu: Cpu, case: &Case, data: &Data, pages: &Pages, step: usize, split: bool) -> Vec<f32> {
    let (attention, all) = (case.attention(pages.layout.cache_type()), pages.all());
    let (rows, (dim_k, dim_v)) = (case.tokens * case.group, case.dims);
    let mut queries = Queries::default();
    for (row, q) in data.q.chunks_exact(dim_k).enumerate() {
        queries.push(cpu, &attention, q, case.position(row));
    }
    let (mut work, mut state, mut out) = (Workspace::default(), State::default(), vec![0.0; rows * dim_v]);
    for from in (0..rows).step_by(step * case.group) {
        let rows = from..(from + step * case.group).min(rows);
        let first_page = attention.first_page(case.position(rows.start));
        let chunks = attention.chunks(case.position(rows.start), case.position(rows.end - 1));
        let mut attend_to = |chunks: Range<usize>, state: &mut State| {
            state.reset(&attention, rows.len());
            let (pages, rows, work) = (&all[first_page..], rows.clone(), &mut work);
            attend(
                cpu,
                Attend { attention: &attention, pages, first_page, after: &all[..1], queries: &queries, rows, chunks, state, work },
            );
        };
        if split {
            let mut parts: Vec<State> = chunks.clone().map(|_| State::default()).collect();
            for chunk in chunks.clone().rev() {
                attend_to(chunk..chunk + 1, &mut parts[chunk - chunks.start]);
            }
            state.reset(&attention, rows.len());
            for part in &parts {
                state.fold(cpu, part);
            }
        } else {
            attend_to(0..chunks.end + 3, &mut state);
        }
        for (i, row) in rows.enumerate() {
            state.finish(cpu, i, case.sink(row), &mut out[row * dim_v..][..dim_v]);
        }
    }
    out
}

/// Three loops in f64.
fn oracle(case: &Case, q: &[f32], keys: &[f32], values: &[f32]) -> Vec<f64> {
    let (mut out, (dim_k, dim_v)) = (Vec::new(), case.dims);
    for (row, q) in q.chunks_exact(dim_k).enumerate() {
        let end = case.position(row) + 1;
        let seen = end.saturating_sub(case.window.unwrap_or(usize::MAX))..end;
        let dot = |t: usize| q.iter().zip(&keys[t * dim_k..]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let mut scores: Vec<f64> = seen.clone().map(|t| dot(t) / (dim_k as f64).sqrt()).collect();
        if let Some(cap) = case.softcap.map(f64::from) {
            for x in &mut scores {
                *x = cap * (*x / cap).tanh();
            }
        }
        let sink = case.sink(row).map_or(f64::NEG_INFINITY, f64::from);
        let max = scores.iter().fold(sink, |a, &b| a.max(b));
        let sum = (sink - max).exp() + scores.iter().map(|x| (x - max).exp()).sum::<f64>();
        let weighted =
            |c: usize| scores.iter().zip(seen.clone()).map(|(x, t)| (x - max).exp() * f64::from(values[t * dim_v + c])).sum::<f64>();
        out.extend((0..dim_v).map(|c| weighted(c) / sum));
    }
    out
}

/// The relative norm of the difference.
fn error(a: &[f32], b: &[f64]) -> f64 {
    let norm = b.iter().map(|x| x * x).sum::<f64>();
    (a.iter().zip(b).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum::<f64>() / norm).sqrt()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

fn stored(case: &Case, pages: &Pages) -> (Vec<f32>, Vec<f32>) {
    let (all, (dim_k, dim_v)) = (pages.all(), case.dims);
    let (mut keys, mut values) = (vec![0.0; case.context * dim_k], vec![0.0; case.context * dim_v]);
    for t in 0..case.context {
        let (k, v) = (&mut keys[t * dim_k..][..dim_k], &mut values[t * dim_v..][..dim_v]);
        pages.layout.read(all[t / PAGE], t % PAGE, k, v);
    }
    (keys, values)
}

/// Bounds of the error against the stored numbers, and against the numbers given.
fn bounds(cache_type: CacheType) -> (f64, f64) {
    match cache_type {
        CacheType::F32 => (1.5e-6, 1.5e-6),
        CacheType::F16 => (1.5e-6, 1e-3),
        CacheType::Q8_0 => (1.2e-2, 2.5e-2),
    }
}

fn check(case: &Case) {
    let data = Data::new(case);
    for cache_type in CacheType::ALL {
        let pages = data.pages(case, cache_type, false);
        let reversed = data.pages(case, cache_type, true);
        let reference = run(Cpu::scalar(), case, &data, &pages, case.tokens, false);
        for cpu in Cpu::available() {
            for (pages, step, split) in
                [(&pages, 1, true), (&pages, 1, false), (&reversed, 2, false), (&pages, 5, true), (&reversed, case.tokens, false)]
            {
                let same = bits(&run(cpu, case, &data, pages, step, split)) == bits(&reference);
                assert!(same, "{} {} {:?}: steps of {step}, split {split}", cpu.name(), cache_type.name(), case.dims);
            }
        }
        let (keys, values) = stored(case, &pages);
        let (kernel, total) = (
            error(&reference, &oracle(case, &data.q, &keys, &values)),
            error(&reference, &oracle(case, &data.q, &data.keys, &data.values)),
        );
        println!("{:?} {}: error of the kernel {kernel:.1e}, with storage {total:.1e}", case.dims, cache_type.name());
        let (of_kernel, of_both) = bounds(cache_type);
        assert!(kernel < of_kernel && total < of_both, "{:?} {}: {kernel:.1e} {total:.1e}", case.dims, cache_type.name());
    }
}

#[test]
fn head_64_group_4() {
    check(&Case::new((64, 64), 4, 700, 9));
}

#[test]
fn head_64_group_8_with_sinks() {
    check(&Case { sinks: true, ..Case::new((64, 64), 8, 300, 5) });
}

#[test]
fn odd_heads() {
    check(&Case::new((8, 8), 2, 270, 7));
    check(&Case { sinks: true, ..Case::new((20, 20), 5, 150, 6) });
    check(&Case::new((48, 48), 6, 330, 4));
    check(&Case::new((80, 80), 1, 333, 7));
    check(&Case::new((1, 3), 1, 90, 3));
}

#[test]
fn windows() {
    check(&Case { window: Some(100), ..Case::new((96, 96), 3, 600, 7) });
    check(&Case { window: Some(1), ..Case::new((16, 16), 1, 140, 70) });
    check(&Case { window: Some(70), sinks: true, ..Case::new((256, 256), 2, 290, 40) });
    check(&Case { window: Some(600), ..Case::new((32, 32), 2, 800, 3) });
}

#[test]
fn soft_cap() {
    check(&Case { softcap: Some(5.0), ..Case::new((128, 128), 7, 520, 6) });
}

#[test]
fn keys_and_values_of_different_width() {
    check(&Case::new((192, 128), 1, 300, 8));
    check(&Case::new((576, 512), 2, 70, 3));
    check(&Case::new((40, 72), 1, 70, 3));
}

#[test]
fn whole_prompts() {
    for tokens in [1, 2, 63, 64, 65, 257] {
        check(&Case::new((16, 16), 1, tokens, tokens));
    }
}

#[test]
fn pages_do_not_depend_on_who_writes_how_much() {
    for dims in [(64, 64), (20, 20), (8, 40), (192, 128)] {
        let case = Case::new(dims, 1, 150, 1);
        let data = Data::new(&case);
        for cache_type in CacheType::ALL {
            let reference = data.pages(&case, cache_type, false);
            for cpu in Cpu::available() {
                for step in [1, 3, 16, 50] {
                    let mut pages = Pages::new(reference.layout, 3, false);
                    pages.write(cpu, 0..150, step, &data.keys, &data.values);
                    assert!(pages.all() == reference.all(), "{} {} {dims:?} {step}", cpu.name(), cache_type.name());
                }
            }
        }
    }
}

#[test]
fn storage_rounds_and_saturates() {
    let attention = Case::new((20, 20), 1, 1, 1);
    for (cache_type, bound) in [(CacheType::F32, 0.0), (CacheType::F16, 1.0 / 2048.0), (CacheType::Q8_0, 0.51 / 127.0)] {
        let mut pages = Pages::new(attention.attention(cache_type).layout, 1, false);
        let x: Vec<f32> = (0..20).map(|i| (i as f32 - 7.0) / 13.0).collect();
        let huge: Vec<f32> = x.iter().map(|x| x * 1e30).collect();
        pages.write(Cpu::best(), 0..2, 2, &[&x[..], &huge].concat(), &[&huge[..], &x].concat());
        let (mut k, mut v) = (vec![0.0; 20], vec![0.0; 20]);
        pages.layout.read(pages.all()[0], 0, &mut k, &mut v);
        assert!(x.iter().zip(&k).all(|(x, k)| (x - k).abs() <= bound), "{} {k:?}", cache_type.name());
        assert!(v.iter().all(|v| v.is_finite()) && v[0] < 0.0 && v[19] > 0.0);
        pages.layout.read(pages.all()[0], 1, &mut k, &mut v);
        assert!(k.iter().all(|k| k.is_finite()) && x.iter().zip(&v).all(|(x, v)| (x - v).abs() <= bound));
    }
}

#[test]
fn what_is_not_finite_gives_nan_to_rows_that_see_it() {
    let plain = Case::new((20, 20), 1, 150, 150);
    for case in [plain.clone(), Case { softcap: Some(3.0), sinks: true, ..plain.clone() }, Case { window: Some(30), ..plain }] {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in 0..3 {
                let mut data = Data::new(&case);
                [&mut data.q, &mut data.keys, &mut data.values][place][70 * 20 + 7] = bad;
                check_nan(&case, &data, place);
            }
        }
    }
}

/// Position 70 is bad: in its query (place 0), or in its key or value.
fn check_nan(case: &Case, data: &Data, place: usize) {
    let clean = Data::new(case);
    for cache_type in CacheType::ALL {
        let expected = run(Cpu::scalar(), case, &clean, &clean.pages(case, cache_type, false), 150, false);
        let pages = data.pages(case, cache_type, false);
        for cpu in Cpu::available() {
            for (step, split) in [(1, true), (150, false)] {
                let out = run(cpu, case, data, &pages, step, split);
                for row in 0..150 {
                    let sees = row == 70 || (place > 0 && row > 70 && row < 70 + case.window.unwrap_or(150));
                    let (out, expected) = (&out[row * 20..][..20], &expected[row * 20..][..20]);
                    let good = if sees { out.iter().all(|x| x.to_bits() == f32::NAN.to_bits()) } else { bits(out) == bits(expected) };
                    assert!(good, "{} {} row {row} place {place}: {out:?}", cpu.name(), cache_type.name());
                }
            }
        }
    }
}

#[test]
fn layouts() {
    for cache_type in CacheType::ALL {
        assert_eq!(CacheType::from_name(cache_type.name()), Some(cache_type));
        for dim in 1..=MAX_HEAD {
            let layout = PageLayout::new(cache_type, dim, MAX_HEAD + 1 - dim).unwrap();
            assert!(layout.bytes().is_multiple_of(64) && layout.bytes_per_position() * PAGE == layout.bytes());
        }
        for (dim_k, dim_v) in [(0, 64), (64, 0), (577, 64), (64, 577)] {
            let error = PageLayout::new(cache_type, dim_k, dim_v).unwrap_err();
            assert_eq!(error, LayoutError { dim_k, dim_v });
            assert!(error.to_string().contains("576"));
        }
    }
    assert_eq!(CacheType::from_name("q3_k"), None);
    let bytes = |cache_type, k, v| PageLayout::new(cache_type, k, v).unwrap().bytes_per_position();
    assert_eq!(bytes(CacheType::F16, 64, 64), 256);
    assert_eq!(bytes(CacheType::Q8_0, 64, 64), 134);
}

#[test]
#[should_panic(expected = "are absent")]
fn a_page_that_is_seen_must_be_there() {
    let case = Case::new((16, 16), 1, 150, 1);
    let data = Data::new(&case);
    let mut pages = data.pages(&case, CacheType::F16, false);
    pages.table.pop();
    run(Cpu::best(), &case, &data, &pages, 1, false);
}
