//! The file: a header, and from [`Header::data`] on the panels of matrices as they are in memory.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | magic |
//! | 4, 4, 4 | version of this format, of the layouts of panels, and 1 in this machine's byte order |
//! | 4 | length of the header |
//! | 32 | BLAKE3 of the header with zeros here |
//! | 32 | key |
//! | 8, 8 | length of the file, start of the data |
//! | 4, 4, 4, 4 | length of the path; numbers of matrices and chunks; zero |
//! | | the path of the model file when it was packed, for people |
//! | 32, 8, 8 each | id, offset and length of a matrix |
//! | 8 each | XXH3 of every [`CHUNK`] bytes of data |
//!
//! Numbers are little-endian. A header is untrusted: whatever it says is checked before it is used.
use super::key::{FORMAT_VERSION, Hash};
use fastllm_kernels::linear::LAYOUT_VERSION;

/// What is written and checked at once: whole huge pages, which the page cache of some file systems keeps as such if they are written in
/// one call.
pub(super) const CHUNK: usize = 4 << 20;
/// Matrices begin on a page.
const PAGE: u64 = 4096;
const MAGIC: &[u8; 8] = b"FLLMPACK";
const ORDER: [u8; 4] = 1u32.to_ne_bytes();
/// Bytes of the fields before the path.
pub(super) const FIXED: usize = 8 + 4 * 4 + 32 + 32 + 2 * 8 + 4 * 4;
/// Where the checksum is.
const CHECKSUM: std::ops::Range<usize> = 24..56;
/// Most bytes of a header: far more than a model of a terabyte has.
pub(super) const MOST_HEADER: usize = 64 << 20;

/// Where a matrix lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// What it is made from.
    pub id: Hash,
    /// From the start of the file.
    pub offset: u64,
    pub bytes: u64,
}

/// What a file says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub key: Hash,
    /// Length of the file.
    pub len: u64,
    /// Start of the data, a multiple of [`CHUNK`].
    pub data: u64,
    /// The path of the model file when it was packed, for people.
    pub source: Vec<u8>,
    /// In the order of their offsets.
    pub matrices: Vec<Entry>,
    /// A checksum of every chunk of the data.
    pub chunks: Vec<u64>,
}

/// Why a file cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// Another version has written it, or another kind of machine.
    Version,
    /// It is not as it was written.
    Damaged,
    /// There is no memory to read it.
    Memory,
}

impl Header {
    /// The header of a file with matrices of these ids and sizes; checksums come later. `None` if it would be too large.
    pub fn plan(key: Hash, source: Vec<u8>, matrices: &[(Hash, u64)]) -> Option<Header> {
        let data_bytes = matrices.iter().try_fold(0u64, |n, m| n.checked_add(m.1.checked_next_multiple_of(PAGE)?))?;
        let chunks = usize::try_from(data_bytes.div_ceil(CHUNK as u64)).ok()?;
        let mut header = Header { key, len: 0, data: 0, source, matrices: Vec::new(), chunks: vec![0; chunks] };
        let header_bytes = FIXED.checked_add(header.source.len())?.checked_add(matrices.len() * 48)?.checked_add(chunks * 8)?;
        if header_bytes > MOST_HEADER {
            return None;
        }
        header.data = (header_bytes as u64).next_multiple_of(CHUNK as u64);
        header.len = header.data;
        for &(id, bytes) in matrices {
            header.matrices.push(Entry { id, offset: header.len, bytes });
            header.len = header.len.checked_add(bytes.next_multiple_of(PAGE))?;
        }
        Some(header)
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(MAGIC);
        out.extend(FORMAT_VERSION.to_le_bytes());
        out.extend(LAYOUT_VERSION.to_le_bytes());
        out.extend(ORDER);
        out.extend(((FIXED + self.source.len() + 48 * self.matrices.len() + 8 * self.chunks.len()) as u32).to_le_bytes());
        out.extend([0; 32]);
        out.extend(self.key);
        out.extend(self.len.to_le_bytes());
        out.extend(self.data.to_le_bytes());
        for count in [self.source.len(), self.matrices.len(), self.chunks.len(), 0] {
            out.extend((count as u32).to_le_bytes());
        }
        out.extend(&self.source);
        for m in &self.matrices {
            out.extend(m.id);
            out.extend(m.offset.to_le_bytes());
            out.extend(m.bytes.to_le_bytes());
        }
        self.chunks.iter().for_each(|sum| out.extend(sum.to_le_bytes()));
        let checksum = *blake3::hash(&out).as_bytes();
        out[CHECKSUM].copy_from_slice(&checksum);
        out
    }

    /// The length of the header that begins with these [`FIXED`] bytes.
    pub fn length(fixed: &[u8]) -> Result<usize, Problem> {
        let mut fields = Fields(fixed);
        if fields.take(8)? != MAGIC {
            return Err(Problem::Damaged);
        }
        if (fields.u32()?, fields.u32()?, fields.take(4)?) != (FORMAT_VERSION, LAYOUT_VERSION, &ORDER) {
            return Err(Problem::Version);
        }
        let len = fields.u32()? as usize;
        if (FIXED..=MOST_HEADER).contains(&len) { Ok(len) } else { Err(Problem::Damaged) }
    }

    /// Reads the header of a file of `file_len` bytes; `bytes` are as many as [`length`](Self::length) says.
    pub fn decode(bytes: &[u8], file_len: u64) -> Result<Header, Problem> {
        if Self::length(bytes)? != bytes.len() {
            return Err(Problem::Damaged);
        }
        // Of the header with zeros where the checksum is.
        let (before, rest) = bytes.split_at_checked(CHECKSUM.start).ok_or(Problem::Damaged)?;
        let (found, after) = rest.split_at_checked(CHECKSUM.len()).ok_or(Problem::Damaged)?;
        let mut checksum = blake3::Hasher::new();
        checksum.update(before).update(&[0; CHECKSUM.end - CHECKSUM.start]).update(after);
        if *checksum.finalize().as_bytes() != *found {
            return Err(Problem::Damaged);
        }
        let mut fields = Fields(bytes.get(CHECKSUM.end..).unwrap_or_default());
        let key = fields.hash()?;
        let (len, data) = (fields.u64()?, fields.u64()?);
        let (source, matrices, chunks, _) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
        let source = fields.take(source as usize)?.to_vec();
        // Counts are not trusted with memory: the fields end where the bytes do.
        let entry = |f: &mut Fields| Ok(Entry { id: f.hash()?, offset: f.u64()?, bytes: f.u64()? });
        let matrices = (0..matrices).map(|_| entry(&mut fields)).collect::<Result<Vec<_>, Problem>>()?;
        let chunks = (0..chunks).map(|_| fields.u64()).collect::<Result<Vec<_>, Problem>>()?;
        let header = Header { key, len, data, source, matrices, chunks };
        if fields.0.is_empty() && header.is_sound(bytes.len() as u64, file_len) { Ok(header) } else { Err(Problem::Damaged) }
    }

    fn is_sound(&self, header_len: u64, file_len: u64) -> bool {
        let chunk = CHUNK as u64;
        let inside = |m: &Entry| {
            m.offset >= self.data && m.offset.is_multiple_of(PAGE) && m.offset.checked_add(m.bytes).is_some_and(|e| e <= self.len)
        };
        self.len == file_len
            && (header_len..=self.len).contains(&self.data)
            && self.data.is_multiple_of(chunk)
            && (self.len - self.data).div_ceil(chunk) == self.chunks.len() as u64
            && self.matrices.iter().all(inside)
    }

    /// Start and length of a chunk.
    pub fn chunk(&self, index: usize) -> (u64, usize) {
        let at = self.data + index as u64 * CHUNK as u64;
        (at, self.len.saturating_sub(at).min(CHUNK as u64) as usize)
    }
}

/// A checksum of a chunk.
pub(super) fn chunk_sum(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// What is left to read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Problem> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Problem::Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Problem::Damaged)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u32(&mut self) -> Result<u32, Problem> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Problem> {
        self.array().map(u64::from_le_bytes)
    }

    fn hash(&mut self) -> Result<Hash, Problem> {
        self.array()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let mut header = Header::plan([7; 32], b"/models/a.gguf".to_vec(), &[([1; 32], 5 << 20), ([2; 32], 100), ([3; 32], 0)]).unwrap();
        header.chunks.iter_mut().enumerate().for_each(|(i, sum)| *sum = i as u64 + 9);
        header
    }

    /// Makes the checksum right again, as a forger would.
    fn forge(bytes: &mut [u8]) {
        bytes[CHECKSUM].fill(0);
        let checksum = *blake3::hash(bytes).as_bytes();
        bytes[CHECKSUM].copy_from_slice(&checksum);
    }

    #[test]
    fn a_header_comes_back() {
        let header = header();
        assert_eq!((header.data, header.chunks.len()), (CHUNK as u64, 2));
        let offsets: Vec<u64> = header.matrices.iter().map(|m| m.offset).collect();
        assert_eq!(offsets, [4 << 20, 9 << 20, (9 << 20) + 4096]);
        let bytes = header.encode();
        assert_eq!(Header::length(&bytes[..FIXED]), Ok(bytes.len()));
        assert_eq!(Header::decode(&bytes, header.len), Ok(header.clone()));
        assert_eq!(Header::decode(&bytes, header.len + 1), Err(Problem::Damaged));
        for len in 0..bytes.len() {
            assert_eq!(Header::decode(&bytes[..len], header.len), Err(Problem::Damaged), "{len}");
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = header().encode();
        for bit in 0..8 * bytes.len() {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&bytes, header().len).is_err(), "{bit}");
        }
    }

    #[test]
    fn other_versions_are_told_from_damage() {
        for at in [8, 11, 12, 15, 16, 19] {
            let mut bytes = header().encode();
            bytes[at] ^= 0x40;
            assert_eq!(Header::decode(&bytes, header().len), Err(Problem::Version), "{at}");
        }
    }

    #[test]
    fn forged_headers_are_sound_or_refused() {
        let good = header();
        let bytes = good.encode();
        let mut refused = 0;
        for at in CHECKSUM.end..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] = value;
                forge(&mut bytes);
                match Header::decode(&bytes, good.len) {
                    Ok(h) => {
                        assert!(h.len == good.len && h.data <= h.len);
                        assert!(h.matrices.iter().all(|m| m.offset % 4096 == 0 && m.offset >= h.data && m.offset + m.bytes <= h.len));
                        assert!((0..h.chunks.len()).all(|i| h.chunk(i).0 + h.chunk(i).1 as u64 <= h.len));
                    }
                    Err(problem) => {
                        assert_eq!(problem, Problem::Damaged);
                        refused += 1;
                    }
                }
            }
        }
        assert!(refused > 100, "{refused}");
        assert!(Header::plan([0; 32], Vec::new(), &[([0; 32], u64::MAX)]).is_none());
    }
}
