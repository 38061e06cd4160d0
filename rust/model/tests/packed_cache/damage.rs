//! Files that are not what they should be: of the cache, and of the model.
use super::*;
use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};

/// Puts other bytes in the place of a file.
fn replace(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

/// Loads with a damaged file: the same bits, and a sound file afterwards.
fn check(folder: &Folder, model: &Path, expected: &[f32], what: &str) {
    let (from, found) = folder.load(model);
    assert_eq!((from, bits(&found)), (WeightsFrom::NewCache, bits(expected)), "{what}");
    assert_eq!(folder.load(model).0, WeightsFrom::Cache, "{what}");
}

#[test]
fn a_file_of_another_length_is_written_anew() {
    let (file, folder) = (small("length"), Folder::new("length"));
    let (_, expected) = folder.load(&file.0);
    let cached = folder.file();
    let sound = fs::read(&cached).unwrap();
    let data = 4 << 20;
    for len in [0, 1, 7, 8, 23, 24, 56, 119, 120, 121, 500, 4096, data - 1, data, data + 1, sound.len() / 2, sound.len() - 1] {
        replace(&cached, &sound[..len.min(sound.len() - 1)]);
        check(&folder, &file.0, &expected, &format!("{len} bytes"));
    }
    replace(&cached, &[&sound[..], &[0]].concat());
    check(&folder, &file.0, &expected, "a byte more");
}

#[test]
fn flipped_bytes_of_a_header_are_noticed() {
    let (file, folder) = (small("header"), Folder::new("header"));
    let (_, expected) = folder.load(&file.0);
    let cached = folder.file();
    let sound = fs::read(&cached).unwrap();
    let header = u32::from_le_bytes(sound[20..24].try_into().unwrap()) as usize;
    assert!(header > 500 && header < 4096);
    // All of them are tried beside the parser; here every field is.
    for at in (0..120).step_by(4).chain((120..header).step_by(16)) {
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (at % 8);
        replace(&cached, &bytes);
        let (from, found) = folder.load(&file.0);
        assert_eq!((from, bits(&found)), (WeightsFrom::NewCache, bits(&expected)), "byte {at}");
    }
    assert_eq!(folder.load(&file.0).0, WeightsFrom::Cache);
}

#[test]
fn flipped_bytes_of_the_data_are_found_by_verify() {
    let (file, folder) = (large("data"), Folder::new("data"));
    let (_, expected) = folder.load(&file.0);
    let cached = folder.file();
    let pool = fastllm_kernels::pool::Pool::new(2);
    let verify = || packed_cache::verify(&folder.0, &pool, &mut |_, _| true).unwrap();
    let condition = |models: &[packed_cache::CachedModel]| models.iter().map(|m| m.condition).collect::<Vec<_>>();
    assert_eq!(condition(&verify()), [packed_cache::Condition::Sound]);
    let sound = fs::read(&cached).unwrap();
    let chunks = sound.len() / (4 << 20) - 1;
    assert!(chunks > 10);
    for chunk in [1, chunks / 2, 0, chunks - 1] {
        let mut bytes = sound.clone();
        bytes[(4 << 20) * (chunk + 1) + 12_345] ^= 4;
        replace(&cached, &bytes);
        assert_eq!(condition(&verify()), [packed_cache::Condition::Damaged]);
        assert!(folder.files().is_empty());
        check(&folder, &file.0, &expected, &format!("chunk {chunk}"));
    }
    // The first and the last chunk are looked at by every load.
    let mut bytes = sound;
    *bytes.last_mut().unwrap() ^= 1;
    replace(&cached, &bytes);
    check(&folder, &file.0, &expected, "the last byte");
    let mut stopped = |_, _| false;
    assert!(matches!(packed_cache::verify(&folder.0, &pool, &mut stopped), Err(ModelError::Cancelled)));
}

/// A chunk that a load does not look at: found in the background when the file is mapped, before anything is computed when it is read.
#[test]
fn a_flipped_bit_anywhere_is_found_in_the_background() {
    let (file, mut folder) = (large("background"), Folder::new("background"));
    let (_, expected) = folder.load(&file.0);
    let cached = folder.file();
    let sound = fs::read(&cached).unwrap();
    let chunks = sound.len() / (4 << 20) - 1;
    // Those that every load looks at are spread evenly.
    let sampled: Vec<usize> = (0..8).map(|i| (chunks - 1) * i / 7).collect();
    for chunk in (0..chunks).filter(|c| !sampled.contains(c)) {
        let mut bytes = sound.clone();
        bytes[(4 << 20) * (chunk + 1) + 4_000_000] ^= 1;
        folder.0.access = Access::Map;
        replace(&cached, &bytes);
        let model = Model::load(&GgufFile::open(&file.0).unwrap(), &folder.options(), &mut |_, _| true).unwrap();
        assert_eq!(model.weights_from(), WeightsFrom::Cache);
        let mut context = Context::new(Arc::new(model)).unwrap();
        let end = std::time::Instant::now() + Duration::from_secs(60);
        while !context.model().is_verified() {
            assert!(std::time::Instant::now() < end, "not verified within a minute");
            std::thread::sleep(Duration::from_millis(1));
        }
        let sequence = context.open();
        let error = forward(&mut context, &rows(sequence, 0, &[3, 1, 4])).unwrap_err();
        assert!(matches!(&error, ModelError::DamagedCache { path } if *path == cached), "{error}");
        assert!(folder.files().is_empty());
        check(&folder, &file.0, &expected, &format!("chunk {chunk}, mapped"));
        folder.0.access = Access::Read;
        replace(&cached, &bytes);
        check(&folder, &file.0, &expected, &format!("chunk {chunk}, read"));
    }
}

/// What the thread was at when the model went does not keep it.
#[test]
fn verification_ends_with_the_model() {
    let (file, mut folder) = (large("dropped"), Folder::new("dropped"));
    folder.0.access = Access::Map;
    folder.load(&file.0);
    for _ in 0..20 {
        let model = Model::load(&GgufFile::open(&file.0).unwrap(), &folder.options(), &mut |_, _| true).unwrap();
        assert_eq!(model.weights_from(), WeightsFrom::Cache);
        drop(model);
    }
    folder.file();
}

#[test]
fn links_and_files_that_others_can_open_are_not_used() {
    let (file, folder) = (small("links"), Folder::new("links"));
    let (_, expected) = folder.load(&file.0);
    let cached = folder.file();
    let elsewhere = Folder::new("links-elsewhere");
    fs::create_dir(&elsewhere.0.folder).unwrap();
    let target = elsewhere.0.folder.join("target");
    fs::rename(&cached, &target).unwrap();
    symlink(&target, &cached).unwrap();
    check(&folder, &file.0, &expected, "a link");
    assert!(fs::symlink_metadata(&cached).unwrap().is_file());
    for mode in [0o644, 0o660, 0o604] {
        fs::set_permissions(&cached, Permissions::from_mode(mode)).unwrap();
        check(&folder, &file.0, &expected, &format!("mode {mode:o}"));
    }
    assert_eq!(fs::metadata(&cached).unwrap().permissions().mode() & 0o777, 0o400);
    assert_eq!(fs::metadata(&folder.0.folder).unwrap().permissions().mode() & 0o777, 0o700);
    fs::remove_file(&cached).unwrap();
    fs::create_dir(&cached).unwrap();
    assert_eq!(bits(&folder.load(&file.0).1), bits(&expected), "a folder in its place");
}

/// Changes one weight and sets the old time of modification again.
fn edit(path: &Path) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let metadata = file.metadata().unwrap();
    let at = metadata.len() - 1000;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    file.set_modified(metadata.modified().unwrap()).unwrap();
}

#[test]
fn a_model_file_that_was_changed_or_replaced_is_packed_again() {
    // Far from any sample of the key.
    let file = large("replaced");
    let folder = Folder::new("replaced");
    let (_, before) = folder.load(&file.0);
    let copy = TempFile::new("cached-replacing", &fs::read(&file.0).unwrap());
    fs::File::open(&copy.0).unwrap().set_modified(fs::metadata(&file.0).unwrap().modified().unwrap()).unwrap();
    // Longer than a tick of the clock of any kernel's file times.
    std::thread::sleep(Duration::from_millis(50));
    edit(&file.0);
    let (from, edited) = folder.load(&file.0);
    assert_eq!(from, WeightsFrom::NewCache);
    assert_eq!(bits(&edited), bits(&load(&file.0, &options(2)).unwrap().1));
    std::thread::sleep(Duration::from_millis(50));
    fs::rename(&copy.0, &file.0).unwrap();
    let (from, replaced) = folder.load(&file.0);
    assert_eq!((from, bits(&replaced)), (WeightsFrom::NewCache, bits(&before)));
    assert_eq!(folder.load(&file.0).0, WeightsFrom::Cache);
}

#[test]
fn a_model_file_that_changes_while_it_is_packed_is_not_cached() {
    let (file, folder) = (small("changing"), Folder::new("changing"));
    std::thread::sleep(Duration::from_millis(50));
    let mut first = true;
    let mut progress = |_, _| {
        if std::mem::take(&mut first) {
            edit(&file.0);
        }
        true
    };
    let model = Model::load(&GgufFile::open(&file.0).unwrap(), &folder.options(), &mut progress).unwrap();
    assert_eq!(model.weights_from(), WeightsFrom::NewCache);
    assert!(packed_cache::finish(Duration::from_secs(60)));
    assert!(folder.files().is_empty());
    logits(model);
}
