//! Models split over several files named `<prefix>-00001-of-00003.gguf`.
//!
//! Paths come from the path that was given alone: nothing in a file can make another path be opened.

use std::io;
use std::path::{Path, PathBuf};

use crate::convert::len_u64;
use crate::error::Error;
use crate::file::read_header;
use crate::limits;
use crate::memory;
use crate::metadata::Metadata;
use crate::regular_file::RegularFile;
use crate::tensor_info::TensorInfo;

/// The name of a shard, taken apart. Numbers count from 1.
#[derive(Debug, PartialEq, Eq)]
struct ShardName<'a> {
    prefix: &'a str,
    number: u64,
    count: u64,
}

impl<'a> ShardName<'a> {
    fn parse(name: &'a str) -> Option<Self> {
        let (rest, count) = split_number(name.strip_suffix(".gguf")?)?;
        let (prefix, number) = split_number(rest.strip_suffix("-of")?)?;
        Some(Self { prefix, number, count })
    }

    fn with_number(&self, number: u64) -> String {
        format!("{}-{number:05}-of-{:05}.gguf", self.prefix, self.count)
    }
}

/// Splits five digits and the hyphen before them off the end.
fn split_number(text: &str) -> Option<(&str, u64)> {
    const DIGITS: usize = 5;
    let (head, digits) = text.split_at_checked(text.len().checked_sub(DIGITS)?)?;
    let number = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())??;
    Some((head.strip_suffix('-')?, number))
}

/// Opens the shards that belong to the only file in `files` and appends their tensors. Does nothing for a model in one file.
pub(crate) fn open_others(files: &mut Vec<RegularFile>, metadata: &Metadata, tensors: &mut Vec<TensorInfo>) -> Result<(), Error> {
    let Some(given) = files.first() else { return Ok(()) };
    let path = given.path.clone();
    let (index, count) = place(metadata).map_err(|e| given.inside(e))?;
    if count <= 1 {
        return Ok(());
    }
    if count > limits::SHARDS {
        return Err(wrong(&path, format!("split.count is {count}, but at most {} shards are read", limits::SHARDS)));
    }
    let name = path.file_name().and_then(|n| n.to_str()).and_then(ShardName::parse).filter(|n| n.count == count);
    let Some(name) = name else {
        let reason = format!("one of {count} shards must be named <prefix>-{:05}-of-{count:05}.gguf", index.saturating_add(1));
        return Err(wrong(&path, reason));
    };
    let sibling = |number| path.with_file_name(name.with_number(number));
    if index != 0 {
        let number = index.saturating_add(1);
        return Err(Error::NotFirstShard { path: path.clone(), number, count, first: sibling(1) });
    }
    if name.number != 1 {
        return Err(wrong(&path, format!("split.no says that this is the first shard, its name that it is number {}", name.number)));
    }
    for number in 2..=count {
        let (file, more) = open_one(sibling(number), number, count)?;
        let index = files.len();
        memory::reserve(tensors, more.len())?;
        tensors.extend(more.into_iter().map(|t| TensorInfo { file: index, ..t }));
        files.push(file);
    }
    let expected = metadata.u64("split.tensors.count")?.unwrap_or(len_u64(tensors.len()));
    if expected != len_u64(tensors.len()) {
        return Err(wrong(&path, format!("split.tensors.count is {expected}, but the shards have {} tensors", tensors.len())));
    }
    Ok(())
}

fn open_one(path: PathBuf, number: u64, count: u64) -> Result<(RegularFile, Vec<TensorInfo>), Error> {
    let file = match RegularFile::open(&path) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Err(Error::MissingShard { path, number, count });
        }
        other => other?,
    };
    let header = read_header(&file)?;
    let (index, its_count) = place(&header.metadata).map_err(|e| file.inside(e))?;
    if (index.saturating_add(1), its_count) != (number, count) {
        let reason = format!("expected shard {number} of {count}, but its metadata says {} of {its_count}", index.saturating_add(1));
        return Err(wrong(&path, reason));
    }
    Ok((file, header.tensors))
}

/// `split.no` (from 0) and `split.count`; a model in one file is number 0 of 1.
fn place(metadata: &Metadata) -> Result<(u64, u64), Error> {
    Ok((metadata.u64("split.no")?.unwrap_or(0), metadata.u64("split.count")?.unwrap_or(1)))
}

fn wrong(path: &Path, reason: String) -> Error {
    Error::Shards { path: path.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_apart_and_together() {
        let name = ShardName::parse("a-b-00002-of-00013.gguf").unwrap();
        assert_eq!(name, ShardName { prefix: "a-b", number: 2, count: 13 });
        assert_eq!(name.with_number(13), "a-b-00013-of-00013.gguf");
        for other in
            ["", "a.gguf", "a-00001-of-00002", "a-0001-of-00002.gguf", "a-00001-of-+0002.gguf", "a00001-of-00002.gguf", "é-of-00002.gguf"]
        {
            assert_eq!(ShardName::parse(other), None, "{other}");
        }
    }
}
