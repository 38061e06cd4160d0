//! The one place where a CPU becomes a type.
use crate::tiles::Tiles;
#[cfg(target_arch = "x86_64")]
use crate::x86_64::{Avx2, Avx512Vnni, AvxVnni};
use crate::{Isa, Kernel, Scalar};

/// An instruction set that this CPU has. The tokens inside exist only if detection found the set.
#[derive(Clone, Copy, Debug)]
pub struct Cpu(Token);

#[derive(Clone, Copy, Debug)]
enum Token {
    Scalar(Scalar),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    AvxVnni(AvxVnni),
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Avx512Vnni),
    #[cfg(target_arch = "x86_64")]
    Avx512Amx(Avx512Vnni, Tiles),
}

/// Work for instruction sets with matrix tiles.
pub trait TileKernel {
    /// Does the work with the vectors of `isa` and with tiles. Mark implementations `#[inline(always)]`.
    fn run<I: Isa>(self, isa: I, tiles: Tiles);
}

/// An instruction set that this CPU lacks, or that does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnavailableIsa {
    /// The name asked for.
    pub name: String,
    /// The names to choose from.
    pub available: Vec<&'static str>,
}

impl std::fmt::Display for UnavailableIsa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "instruction set {:?} is not available on this CPU; choose one of: auto, {}", self.name, self.available.join(", "))
    }
}

impl std::error::Error for UnavailableIsa {}

impl Cpu {
    /// All instruction sets of this CPU, the slowest first.
    pub fn available() -> Vec<Cpu> {
        let mut all = vec![Cpu(Token::Scalar(Scalar))];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(Avx2::detect().map(|t| Cpu(Token::Avx2(t))));
            all.extend(AvxVnni::detect().map(|t| Cpu(Token::AvxVnni(t))));
            if let Some(isa) = Avx512Vnni::detect() {
                all.push(Cpu(Token::Avx512Vnni(isa)));
                all.extend(Tiles::detect().map(|tiles| Cpu(Token::Avx512Amx(isa, tiles))));
            }
        }
        all
    }

    /// The reference set.
    pub fn scalar() -> Cpu {
        Cpu(Token::Scalar(Scalar))
    }

    /// The fastest set of this CPU.
    pub fn best() -> Cpu {
        Cpu::available().pop().unwrap_or(Cpu::scalar())
    }

    /// The set called `name`; `"auto"` is what the environment variable `FASTLLM_ISA` says, else the best.
    ///
    /// # Errors
    /// If the name is unknown or the CPU lacks the set.
    pub fn by_name(name: &str) -> Result<Cpu, UnavailableIsa> {
        if name != "auto" {
            return Cpu::exactly(name);
        }
        match std::env::var("FASTLLM_ISA") {
            Ok(name) if !name.is_empty() && name != "auto" => Cpu::exactly(&name),
            _ => Ok(Cpu::best()),
        }
    }

    fn exactly(name: &str) -> Result<Cpu, UnavailableIsa> {
        let available = Cpu::available();
        let found = available.iter().find(|cpu| cpu.name() == name).copied();
        found.ok_or_else(|| UnavailableIsa { name: name.to_owned(), available: available.iter().map(|cpu| cpu.name()).collect() })
    }

    /// The name users write: `scalar`, `avx2`, `avx_vnni`, `avx512_vnni`, `avx512_amx`.
    pub fn name(self) -> &'static str {
        if self.has_tiles() {
            return "avx512_amx";
        }
        struct Name;
        impl Kernel for Name {
            type Output = &'static str;
            fn run<I: Isa>(self, _: I) -> &'static str {
                I::NAME
            }
        }
        self.run(Name)
    }

    /// Runs `kernel`, compiled for this instruction set.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            Token::Scalar(isa) => isa.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(isa) => isa.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Token::AvxVnni(isa) => isa.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Token::Avx512Vnni(isa) | Token::Avx512Amx(isa, _) => isa.run(kernel),
        }
    }

    /// Whether the set has matrix tiles.
    pub fn has_tiles(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return matches!(self.0, Token::Avx512Amx(..));
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// Runs `kernel` if the set has matrix tiles, else gives it back.
    ///
    /// # Errors
    /// The kernel, if there are no tiles.
    #[inline]
    pub fn run_tiled<K: TileKernel>(self, kernel: K) -> Result<(), K> {
        struct Tiled<K>(K, Tiles);
        impl<K: TileKernel> Kernel for Tiled<K> {
            type Output = ();
            #[inline(always)]
            fn run<I: Isa>(self, isa: I) {
                self.0.run(isa, self.1);
            }
        }
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Token::Avx512Amx(isa, tiles) => {
                isa.run(Tiled(kernel, tiles));
                Ok(())
            }
            _ => Err(kernel),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_set_is_an_error_that_lists_the_others() {
        let error = Cpu::by_name("sse9").unwrap_err();
        assert_eq!(error.name, "sse9");
        assert!(error.to_string().contains("scalar"));
    }

    #[test]
    fn every_available_set_is_found_by_its_name() {
        for cpu in Cpu::available() {
            assert_eq!(Cpu::by_name(cpu.name()).unwrap().name(), cpu.name());
        }
    }
}
