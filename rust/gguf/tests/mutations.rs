//! Valid files with bits flipped and bytes replaced: no panic, little time, memory in proportion to the file.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::time::{Duration, Instant};

use common::{Raw, folder, small_file};
use fastllm_gguf::{GgufFile, Header, Value, ValueType};

/// Counts the bytes that the current thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

fn count(more: usize, less: usize) {
    let held = HELD.get().wrapping_add(more).wrapping_sub(less);
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

// SAFETY: every call goes to the system allocator unchanged; counting touches only constant-initialised thread-locals without
// destructors, which allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promises are those of the system allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes held at once while `f` runs, above what was held before.
fn peak(f: impl FnOnce()) -> usize {
    let before = HELD.get();
    PEAK.set(before);
    f();
    PEAK.get() - before
}

/// Error messages, and the small vectors of a small file.
const CONSTANT: usize = 16 << 10;

/// Parses, and if that works touches every value.
fn exercise(bytes: &[u8], file_len: u64) {
    fn touch(value: Value<'_>) {
        match value {
            Value::Array(array) => array.iter().for_each(touch),
            other => drop(black_box(other)),
        }
    }
    match Header::parse(bytes, file_len) {
        Ok(header) => {
            for (key, value) in header.metadata.iter() {
                assert_eq!(header.metadata.get(key).map(|v| v.kind()), Some(value.kind()));
                touch(value);
            }
            for t in &header.tensors {
                assert!(t.offset % header.alignment == 0 && t.offset + t.bytes <= file_len);
                assert_eq!(t.dtype.bytes_for(t.elements()), Some(t.bytes));
            }
        }
        Err(error) => assert!(!black_box(error.to_string()).is_empty()),
    }
}

fn check(bytes: &[u8]) {
    let start = Instant::now();
    let held = peak(|| exercise(bytes, bytes.len() as u64));
    assert!(held <= 3 * bytes.len() + CONSTANT, "{held} bytes for a file of {}", bytes.len());
    // The same bytes as the start of a file that is as large as its lengths claim.
    let held = peak(|| exercise(bytes, u64::MAX));
    assert!(held <= 3 * bytes.len() + CONSTANT, "{held} bytes for a prefix of {}", bytes.len());
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

#[test]
fn ten_thousand_bit_flips() {
    let file = small_file();
    let mut random = Random(1);
    for _ in 0..10_000 {
        let mut bytes = file.clone();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        check(&bytes);
    }
}

#[test]
fn every_bit_of_the_header() {
    let file = small_file();
    let header = Header::parse(&file, file.len() as u64).unwrap().data_start as usize;
    for bit in 0..header * 8 {
        let mut bytes = file.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        check(&bytes);
    }
}

#[test]
fn extreme_numbers_at_every_byte() {
    let file = small_file();
    let header = Header::parse(&file, file.len() as u64).unwrap().data_start as usize;
    let extremes = [0, 1, u64::from(u32::MAX), 1 << 31, 1 << 32, 1 << 61, i64::MAX as u64, 1 << 63, u64::MAX - 31, u64::MAX];
    for at in 0..header - 8 {
        for extreme in extremes {
            let mut bytes = file.clone();
            bytes[at..at + 8].copy_from_slice(&extreme.to_le_bytes());
            check(&bytes);
        }
    }
}

#[test]
fn counts_that_promise_more_than_the_prefix_holds() {
    for count in [1 << 16, 1 << 20, 1 << 40] {
        check(&Raw::new(count, 0).0);
        check(&Raw::new(0, count).0);
        for kind in ValueType::ALL {
            check(&Raw::new(0, 1).entry("a", ValueType::Array).u32(kind.id()).u64(count).0);
        }
    }
}

/// Memory and time for headers made of the smallest records of each kind.
#[test]
fn many_small_records_stay_within_four_times_their_bytes() {
    let entries = (0..60_000u32).fold(Raw::new(0, 60_000), |raw, i| raw.entry(i.to_string(), ValueType::U8).bytes(&[0]));
    let tensors = (0..60_000u32).fold(Raw::new(60_000, 0), |raw, i| raw.tensor(i.to_string(), &[1], 24, u64::from(i) * 32));
    let tensors = tensors.data(60_000 * 32);
    let strings = (0..500_000).fold(Raw::new(0, 1).entry("t", ValueType::Array).u32(8).u64(500_000), |raw, _| raw.string(""));
    let nested = (0..300_000).fold(Raw::new(0, 1).entry("t", ValueType::Array).u32(9).u64(300_000), |raw, _| raw.u32(0).u64(0));
    for raw in [entries, tensors, strings, nested] {
        let start = Instant::now();
        let header_bytes = raw.0.len() - raw.parse().unwrap().tensors.len() * 32;
        let held = peak(|| exercise(&raw.0, raw.0.len() as u64));
        assert!(held <= 4 * header_bytes + CONSTANT, "{held} bytes for a header of {header_bytes}");
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

/// The first read is 4 MiB; after that the buffer follows the header.
#[test]
fn opening_holds_less_than_four_times_the_header() {
    let path = folder("open-memory").join("m.gguf");
    for strings in [1_000, 500_000, 1_100_000, 1_500_000] {
        let head = Raw::new(0, 1).entry("t", ValueType::Array).u32(8).u64(strings);
        let raw = (0..strings).fold(head, |raw, _| raw.string("12345678"));
        std::fs::write(&path, &raw.0).unwrap();
        let held = peak(|| drop(black_box(GgufFile::open(&path).unwrap())));
        assert!(held <= 4 * raw.0.len() + (8 << 20), "{held} bytes for a header of {}", raw.0.len());
    }
    // The header ends long before the data does.
    let raw = Raw::new(1, 0).tensor("t", &[100 << 20], 24, 0).data(0);
    std::fs::write(&path, &raw.0).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(101 << 20).unwrap();
    let before = HELD.get();
    let mut model = None;
    let held = peak(|| model = Some(GgufFile::open(&path).unwrap()));
    assert!(held <= 5 << 20, "{held} bytes for a header of {}", raw.0.len());
    // Of the first read, only the header is kept.
    let kept = HELD.get() - before;
    assert!(kept <= CONSTANT, "{kept} bytes are kept for a header of {}", raw.0.len());
    drop(model);
}
