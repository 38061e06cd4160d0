//! Matrix tiles: the AMX extension of x86-64, which multiplies 16 tokens by 16 rows in one instruction.
//!
//! Not an instruction set of its own: vectors are those of AVX-512, and only products of many tokens use tiles.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::marker::PhantomData;

/// Rows and tokens of a tile.
pub const TILE: usize = 16;

/// Proof that tiles can be used in this process; exists only if `detect` found them.
#[derive(Clone, Copy, Debug)]
pub struct Tiles(());

/// The tiles of this thread, configured for dot products of a certain number of columns; releases them when dropped.
///
/// A thread has one configuration, so at most one of these exists on it, and it cannot move to another thread.
#[derive(Debug)]
pub struct Configured {
    /// The configuration belongs to a thread.
    thread: PhantomData<*const ()>,
    columns: usize,
}

thread_local! {
    /// Whether there is a [`Configured`] on this thread.
    static IN_USE: Cell<bool> = const { Cell::new(false) };
}

#[cfg(target_arch = "x86_64")]
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Tiles {
    /// Tiles, if the CPU has them for 8-bit integers and the system lets this process use them.
    pub fn detect() -> Option<Tiles> {
        static PRESENT: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        PRESENT.get_or_init(present).then_some(Tiles(()))
    }

    /// Configures this thread's tiles for dot products of `columns` columns, 16 or 32.
    ///
    /// # Panics
    /// If `columns` is a different number, or the thread's tiles are configured already.
    pub fn configure(&self, columns: usize) -> Configured {
        assert!(columns == 16 || columns == 32, "dot products of {columns} columns");
        assert!(!IN_USE.replace(true), "the tiles of this thread are configured already");
        // SAFETY: `self` exists, so there are tiles; 16 and 32 were checked.
        unsafe { configure(columns) };
        Configured { thread: PhantomData, columns }
    }
}

impl Configured {
    /// `out[t][r] = sum_c weights[r][c] * x[stride * t + c]` for 16 tokens, 16 rows and the configured columns. `weights` are signed
    /// bytes, four columns of every row in a vector. `SLOT`, 0 to 3, names the accumulator: neighbours with different ones overlap.
    ///
    /// # Panics
    /// If a slice is too short.
    #[inline(always)]
    pub fn dot<const SLOT: u8>(&self, weights: &[[u8; 64]], x: &[i8], stride: usize, out: &mut [[i32; TILE]; TILE]) {
        const { assert!(SLOT < 4, "there are four accumulators") };
        let read = stride.checked_mul(TILE - 1).and_then(|last| last.checked_add(self.columns));
        assert!(weights.len() >= self.columns / 4 && read.is_some_and(|read| x.len() >= read), "a slice is too short");
        // SAFETY: this thread's tiles are configured for `columns` columns: only `configure` makes a `Configured`, which stays on its
        // thread, no other exists there, and it releases the tiles when it goes. What the instructions read was compared with the slices.
        unsafe { dot::<SLOT>(weights, x, stride, out) };
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: a `Configured` exists only where there are tiles; nothing reads them any more.
        unsafe { release() };
        IN_USE.set(false);
    }
}

#[cfg(target_arch = "x86_64")]
fn present() -> bool {
    use std::arch::x86_64::{__cpuid_count, _xgetbv};
    /// # Safety
    /// The CPU must have XSAVE, and the system have turned it on (OSXSAVE).
    #[target_feature(enable = "xsave")]
    unsafe fn enabled_state() -> u64 {
        // SAFETY: the caller's promise.
        unsafe { _xgetbv(0) }
    }
    // Leaf 1: OSXSAVE; leaf 7: AMX-TILE and AMX-INT8.
    let cpu = __cpuid_count(1, 0).ecx & 1 << 27 != 0 && __cpuid_count(7, 0).edx & 3 << 24 == 3 << 24;
    // SAFETY: OSXSAVE was found. Bits 17 and 18: the system saves tile state.
    cpu && unsafe { enabled_state() } & 3 << 17 == 3 << 17 && permitted()
}

/// Asks Linux for the permission to use tile data, which it grants to whole processes.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XFEATURE_XTILEDATA: u64 = 18;
    let result: i64;
    // SAFETY: a system call that takes two numbers and touches no memory of ours.
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") ARCH_PRCTL => result, in("rdi") ARCH_REQ_XCOMP_PERM, in("rsi") XFEATURE_XTILEDATA,
            out("rcx") _, out("r11") _, options(nostack));
    }
    result == 0
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn permitted() -> bool {
    false
}

/// # Safety
/// [`present`] must have said so; `columns` must be 16 or 32.
#[cfg(target_arch = "x86_64")]
unsafe fn configure(columns: usize) {
    let mut config = Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
    for slot in 0..4 {
        // Accumulators: 16 tokens x 16 rows.
        (config.row_bytes[slot], config.rows[slot]) = (64, 16);
    }
    // Activations: 16 tokens x columns; weights: a vector for every four columns.
    (config.row_bytes[4], config.rows[4]) = (columns as u16, 16);
    (config.row_bytes[5], config.rows[5]) = (64, columns as u8 / 4);
    // SAFETY: a valid configuration, of palette 1: at most 16 rows of at most 64 bytes. The caller promised the instruction.
    unsafe { std::arch::asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, readonly, preserves_flags)) }
}

/// # Safety
/// [`present`] must have said so, and nobody may use this thread's tiles afterwards before they are configured again.
#[cfg(target_arch = "x86_64")]
unsafe fn release() {
    // SAFETY: gives the tiles of this thread back; the caller promised the instruction, and that nothing reads them.
    unsafe { std::arch::asm!("tilerelease", options(nostack, nomem, preserves_flags)) }
}

/// # Safety
/// This thread's tiles must be configured for some columns, of which `weights` must have a vector for every four, and `x` must have
/// `15 * stride` bytes and the columns. `SLOT` must be below 4.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn dot<const SLOT: u8>(weights: &[[u8; 64]], x: &[i8], stride: usize, out: &mut [[i32; TILE]; TILE]) {
    // SAFETY: the caller's promises: the tiles are configured, and all they read lies inside the slices. They write 16 rows of 64 bytes,
    // which is `out`.
    unsafe {
        std::arch::asm!(
            "tilezero tmm{slot}",
            "tileloadd tmm4, [{x} + {stride}*1]",
            "tileloadd tmm5, [{w} + {line}*1]",
            "tdpbssd tmm{slot}, tmm4, tmm5",
            "tilestored [{out} + {line}*1], tmm{slot}",
            slot = const SLOT,
            x = in(reg) x.as_ptr(),
            w = in(reg) weights.as_ptr(),
            out = in(reg) out.as_mut_ptr(),
            stride = in(reg) stride,
            line = in(reg) 64usize,
            options(nostack, preserves_flags)
        );
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn present() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn configure(_: usize) {}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn release() {}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn dot<const SLOT: u8>(_: &[[u8; 64]], _: &[i8], _: usize, _: &mut [[i32; TILE]; TILE]) {
    unreachable!("tiles exist on x86-64 only")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_the_definition() {
        let Some(tiles) = Tiles::detect() else {
            println!("skipped: this CPU has no tiles");
            return;
        };
        for columns in [16, 32] {
            let weights: Vec<[u8; 64]> = (0..8).map(|j| std::array::from_fn(|i| (j * 67 + i * 29 + 3) as u8)).collect();
            let x: Vec<i8> = (0..16 * 48).map(|i| (i * 37 % 251) as u8 as i8).collect();
            let mut out = [[0; TILE]; TILE];
            let configured = tiles.configure(columns);
            configured.dot::<2>(&weights, &x, 48, &mut out);
            // Exactly what is read, and a byte less; and a product that would wrap.
            let exact = 15 * 48 + columns;
            configured.dot::<0>(&weights[..columns / 4], &x[..exact], 48, &mut [[0; TILE]; TILE]);
            for (weights, len, stride) in
                [(columns / 4, exact - 1, 48), (columns / 4 - 1, exact, 48), (8, x.len(), usize::MAX / 15 + 1), (8, x.len(), usize::MAX)]
            {
                let call = || configured.dot::<0>(&[[0; 64]; 8][..weights], &x[..len], stride, &mut [[0; TILE]; TILE]);
                assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).is_err(), "{weights} {len} {stride}");
            }
            for t in 0..TILE {
                for r in 0..TILE {
                    let product = |c: usize| i32::from(weights[c / 4][4 * r + c % 4] as i8) * i32::from(x[48 * t + c]);
                    assert_eq!(out[t][r], (0..columns).map(product).sum::<i32>(), "token {t}, row {r}, {columns} columns");
                }
            }
        }
    }

    #[test]
    fn a_thread_has_one_configuration_at_a_time() {
        let Some(tiles) = Tiles::detect() else {
            println!("skipped: this CPU has no tiles");
            return;
        };
        let first = tiles.configure(32);
        assert!(std::panic::catch_unwind(|| drop(tiles.configure(16))).is_err());
        // Other threads have tiles of their own.
        std::thread::spawn(move || drop(tiles.configure(16))).join().unwrap();
        drop(first);
        drop(tiles.configure(16));
    }
}
