//! Opening: shards, special files, files that change.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Raw, folder, small_file};
use fastllm_gguf::{DType, Error, GgufFile, ValueType, Writer, limits};

fn write(path: &Path, bytes: &[u8]) -> PathBuf {
    fs::write(path, bytes).unwrap();
    path.to_owned()
}

/// Three shards with a tensor `t<i>` of bytes `i` each, i from 0.
fn shards(folder: &Path) -> Vec<PathBuf> {
    let paths = (0..3u16).map(|i| {
        let mut file = Vec::new();
        shard(i, 3, 3).add(format!("t{i}"), &[4, 2], DType::F32, vec![i as u8; 32]).write(&mut file).unwrap();
        write(&folder.join(format!("m-{:05}-of-00003.gguf", i + 1)), &file)
    });
    paths.collect()
}

fn shard(number: u16, count: u16, tensors: i32) -> Writer {
    let mut writer = Writer::new();
    writer.set("split.no", number).set("split.count", count).set("split.tensors.count", tensors);
    writer
}

#[track_caller]
fn refused(path: &Path, named: &str) -> Error {
    let error = GgufFile::open(path).expect_err("a bad file was opened");
    assert!(error.to_string().contains(named), "`{error}` does not name `{named}`");
    error
}

#[test]
fn one_file() {
    let folder = folder("one-file");
    let path = write(&folder.join("m.gguf"), &small_file());
    let model = GgufFile::open(&path).unwrap();
    assert_eq!((model.path(), model.version(), model.total_bytes()), (path.as_path(), 3, small_file().len() as u64));
    let tensor = model.tensor("blk.0.attn_q.weight").unwrap();
    assert_eq!((tensor.dims.as_slice(), tensor.dtype, tensor.bytes, tensor.elements()), ([32, 3].as_slice(), DType::Q4_0, 54, 96));
    let mut bytes = [0; 54];
    model.read_at(tensor, 0, &mut bytes).unwrap();
    assert_eq!(bytes, [2; 54]);
    model.read_at(tensor, 54, &mut []).unwrap();
    for (offset, len) in [(1, 54), (54, 1), (u64::MAX, 2), (u64::MAX, 0)] {
        let error = model.read_at(tensor, offset, &mut bytes[..len]).unwrap_err();
        assert!(matches!(error, Error::ReadOutsideTensor { .. }));
    }
    assert!(model.tensor("absent").is_none());
}

#[test]
fn header_larger_than_the_first_read() {
    let folder = folder("large-header");
    let tokens: Vec<String> = (0..400_000).map(|i| format!("token number {i}")).collect();
    let mut file = Vec::new();
    Writer::new().set("tokens", tokens.clone()).add("t", &[1], DType::I8, vec![7]).write(&mut file).unwrap();
    assert!(file.len() > 9 << 20);
    let model = GgufFile::open(write(&folder.join("m.gguf"), &file)).unwrap();
    let read = model.metadata().array("tokens").unwrap().unwrap();
    assert!(read.strings().unwrap().eq(tokens.iter().map(String::as_bytes)));
}

#[test]
fn shards_are_one_model() {
    let paths = shards(&folder("shards"));
    let model = GgufFile::open(&paths[0]).unwrap();
    assert!(model.paths().eq(paths.iter().map(PathBuf::as_path)));
    assert_eq!(model.total_bytes(), paths.iter().map(|p| fs::metadata(p).unwrap().len()).sum());
    for i in 0..3 {
        let tensor = model.tensor(&format!("t{i}")).unwrap();
        assert_eq!(tensor.file, i);
        let mut bytes = [9; 32];
        model.read_at(tensor, 0, &mut bytes).unwrap();
        assert_eq!(bytes, [i as u8; 32]);
    }
}

#[test]
fn a_later_shard_names_the_first() {
    let paths = shards(&folder("later-shard"));
    let error = refused(&paths[1], "m-00001-of-00003.gguf");
    assert!(matches!(error, Error::NotFirstShard { number: 2, count: 3, first, .. } if first == paths[0]));
}

#[test]
fn a_missing_shard_is_named() {
    let paths = shards(&folder("missing-shard"));
    fs::remove_file(&paths[2]).unwrap();
    assert!(matches!(refused(&paths[0], "m-00003-of-00003.gguf"), Error::MissingShard { number: 3, count: 3, .. }));
}

#[test]
fn shards_that_do_not_belong_together() {
    let folder = folder("mixed-shards");
    let paths = shards(&folder);
    let good = fs::read(&paths[1]).unwrap();
    fs::copy(&paths[2], &paths[1]).unwrap();
    refused(&paths[0], "expected shard 2 of 3, but its metadata says 3 of 3");
    let twice = {
        let mut file = Vec::new();
        shard(1, 3, 3).add("t0", &[1], DType::F32, vec![0; 4]).write(&mut file).unwrap();
        file
    };
    write(&paths[1], &twice);
    refused(&paths[0], "tensor `t0` occurs twice");
    let none = {
        let mut file = Vec::new();
        shard(1, 3, 3).write(&mut file).unwrap();
        file
    };
    write(&paths[1], &none);
    refused(&paths[0], "split.tensors.count is 3, but the shards have 2");
    write(&paths[1], &good[..good.len() - 33]);
    refused(&paths[0], "m-00002-of-00003.gguf");
    write(&paths[1], &good);
    assert!(GgufFile::open(&paths[0]).is_ok());
}

#[test]
fn shard_names_come_from_the_given_path_alone() {
    let folder = folder("shard-names");
    let paths = shards(&folder);
    for name in ["m.gguf", "m-00001-of-00002.gguf", "m-00002-of-00003-x.gguf"] {
        let other = folder.join(name);
        fs::copy(&paths[0], &other).unwrap();
        assert!(matches!(refused(&other, "must be named"), Error::Shards { .. }));
    }
    let renamed = folder.join("n-00002-of-00003.gguf");
    fs::copy(&paths[0], &renamed).unwrap();
    refused(&renamed, "its name that it is number 2");
    // A count that is huge, negative or text.
    let with = |kind: ValueType, bytes: &[u8]| write(&folder.join("x.gguf"), &Raw::new(0, 1).entry("split.count", kind).bytes(bytes).0);
    refused(&with(ValueType::U64, &u64::MAX.to_le_bytes()), "at most 1024");
    refused(&with(ValueType::I32, &(-1i32).to_le_bytes()), "split.count` is -1");
    refused(&with(ValueType::String, &0u64.to_le_bytes()), "of type string");
    // A name like a shard's without the keys is an ordinary file.
    assert!(GgufFile::open(write(&folder.join("y-00002-of-00009.gguf"), &small_file())).is_ok());
}

#[test]
fn errors_name_the_path() {
    let folder = folder("named-path");
    let error = refused(&folder.join("absent.gguf"), "absent.gguf: open: ");
    assert!(matches!(error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound));
    let path = write(&folder.join("bad.gguf"), b"PK\x03\x04");
    assert!(matches!(refused(&path, "bad.gguf: not a GGUF file").root(), Error::NotGguf { .. }));
    assert!(matches!(refused(&folder, "a directory"), Error::NotRegularFile { .. }));
}

#[test]
fn a_file_that_becomes_shorter() {
    let folder = folder("shrunk");
    let path = write(&folder.join("m.gguf"), &small_file());
    let model = GgufFile::open(&path).unwrap();
    let tensor = model.tensor("token_embd.weight").unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(tensor.offset + 1).unwrap();
    let mut bytes = [0; 64];
    let error = model.read_at(tensor, 0, &mut bytes).unwrap_err();
    assert!(error.to_string().contains("`token_embd.weight`") && error.to_string().contains("has become shorter"), "{error}");
}

#[test]
fn a_sparse_giant() {
    let folder = folder("sparse");
    let path = folder.join("m.gguf");
    // A terabyte, or what the file system allows, of which the header claims a string of half.
    let claims = |len: u64| {
        let raw = Raw::new(0, 1).entry("k", ValueType::String).u64(len);
        fs::write(&path, raw.0).unwrap();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 40)
    };
    if claims(1 << 39).is_err() {
        println!("skipped: the file system has no sparse files of 1 TiB");
        return;
    }
    let error = refused(&path, "metadata key `k` is beyond the first");
    assert!(matches!(error.root(), Error::HeaderTooLarge { limit: limits::HEADER_BYTES, .. }));
    claims(u64::MAX).unwrap();
    assert!(matches!(refused(&path, "metadata key `k`").root(), Error::TooLarge { .. }));
    fs::OpenOptions::new().write(true).truncate(true).open(&path).unwrap().set_len(1 << 40).unwrap();
    assert!(matches!(refused(&path, "zeros").root(), Error::NotGguf { .. }));
}

#[cfg(unix)]
mod special {
    use super::*;
    use std::time::Duration;

    #[test]
    fn fifos_do_not_block() {
        let path = folder("fifo").join("m.gguf");
        match std::process::Command::new("mkfifo").arg(&path).status() {
            Ok(status) if status.success() => {}
            other => return println!("skipped: mkfifo: {other:?}"),
        }
        // In a thread of its own: should opening wait for a writer, the test fails instead of hanging.
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || send.send(GgufFile::open(path).map(drop)));
        let opened = receive.recv_timeout(Duration::from_secs(5)).expect("opening a FIFO blocks");
        assert!(matches!(opened, Err(Error::NotRegularFile { kind: "a FIFO", .. })), "{opened:?}");
    }

    #[test]
    fn devices_sockets_and_loops() {
        let folder = folder("special");
        assert!(matches!(refused(Path::new("/dev/zero"), "a device"), Error::NotRegularFile { .. }));
        let socket = folder.join("socket.gguf");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        refused(&socket, "socket.gguf");
        let link = folder.join("loop.gguf");
        std::os::unix::fs::symlink(&link, &link).unwrap();
        assert!(matches!(refused(&link, "loop.gguf"), Error::Io { .. }));
    }

    #[test]
    fn links_to_files_and_shards_work() {
        let folder = folder("links");
        let paths = shards(&folder);
        for (i, path) in paths.iter().enumerate() {
            let blob = folder.join(format!("blob{i}"));
            fs::rename(path, &blob).unwrap();
            std::os::unix::fs::symlink(&blob, path).unwrap();
        }
        assert_eq!(GgufFile::open(&paths[0]).unwrap().tensors().len(), 3);
    }
}
