//! The folder: limits, old files, full disks, the commands.
use super::*;
use fastllm_model::packed_cache::Condition;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::SystemTime;

fn age(path: &Path, by: Duration) {
    File::open(path).unwrap().set_modified(SystemTime::now() - by).unwrap();
}

#[test]
fn the_least_recently_used_files_make_room() {
    // Equal files of equal times would be one model.
    let named = |name: &str| {
        let mut writer = small_models::experts();
        writer.set("general.name", name);
        TempFile::new(&format!("cached-{name}"), &small_models::bytes(&writer))
    };
    let (a, b, c) = (named("a"), named("b"), named("c"));
    let mut folder = Folder::new("lru");
    folder.load(&a.0);
    let first = folder.file();
    let size = fs::metadata(&first).unwrap().len();
    folder.0.limit = 2 * size;
    folder.load(&b.0);
    let second = folder.files().into_iter().find(|f| *f != first).unwrap();
    for (path, minutes) in [(&first, 2), (&second, 1)] {
        age(path, Duration::from_secs(60 * minutes));
    }
    // Now the first is the one that was used last.
    assert_eq!(folder.load(&a.0).0, WeightsFrom::Cache);
    assert_eq!(folder.load(&c.0).0, WeightsFrom::NewCache);
    assert_eq!(folder.files().len(), 2);
    assert!(first.exists() && !second.exists());
    assert_eq!(folder.load(&a.0).0, WeightsFrom::Cache);
    // What does not fit at all is not cached, and drives nothing out.
    folder.0.limit = size - 1;
    assert_eq!(folder.load(&b.0).0, WeightsFrom::ModelFile);
    assert_eq!(folder.files().len(), 2);
}

#[test]
fn folders_that_cannot_be_used_do_not_matter() {
    let file = small("unusable");
    let folder = Folder::new("unusable");
    fs::create_dir(&folder.0.folder).unwrap();
    let inside = |name: &str| folder.0.folder.join(name);
    fs::write(inside("file"), "").unwrap();
    fs::create_dir(inside("open")).unwrap();
    fs::set_permissions(inside("open"), Permissions::from_mode(0o777)).unwrap();
    for path in [inside("file"), inside("file/below"), inside("open"), PathBuf::from("/proc/none"), PathBuf::new()] {
        let settings = CacheSettings { folder: path.clone(), ..folder.0.clone() };
        let (from, _) = load(&file.0, &LoadOptions { packed_cache: Some(settings), ..options(2) }).unwrap();
        assert_eq!(from, WeightsFrom::ModelFile, "{}", path.display());
    }
    assert_eq!(fs::read_dir(inside("open")).unwrap().count(), 0);
}

/// In a child, whose files may not grow beyond a megabyte.
#[test]
fn a_full_disk_does_not_matter() {
    const LIMITED: &str = "FASTLLM_TEST_LIMITED";
    if std::env::var_os(LIMITED).is_none() {
        return common::in_child("folder::a_full_disk_does_not_matter", LIMITED);
    }
    let (file, folder) = (small("full"), Folder::new("full"));
    let (_, expected) = load(&file.0, &options(2)).unwrap();
    let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: plain system calls; `limit` lives for the second.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
    }
    let (from, found) = folder.load(&file.0);
    assert_eq!((from, bits(&found)), (WeightsFrom::ModelFile, bits(&expected)));
    assert!(folder.files().is_empty());
}

#[test]
fn list_clear_and_what_dead_writers_left() {
    let (file, folder) = (small("clear"), Folder::new("clear"));
    assert!(packed_cache::list(&folder.0).unwrap().is_empty() && packed_cache::clear(&folder.0).unwrap().is_empty());
    let expected = folder.load(&file.0).1;
    let cached = folder.file();
    let listed = packed_cache::list(&folder.0).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0].source, &listed[0].path), (&file.0.canonicalize().unwrap(), &cached.canonicalize().unwrap()));
    assert_eq!((listed[0].bytes, listed[0].condition), (fs::metadata(&cached).unwrap().len(), Condition::Sound));
    assert!(listed[0].used.elapsed().unwrap() < Duration::from_secs(60));

    let stem = "0123456789abcdef0123456789abcdef";
    let (dead, alive, other) = (format!("{stem}.1-1.tmp"), format!("{stem}.1-2.tmp"), "notes.txt");
    for name in [&dead[..], &alive, other] {
        fs::write(folder.0.folder.join(name), "x").unwrap();
    }
    let writer = File::open(folder.0.folder.join(&alive)).unwrap();
    writer.try_lock().unwrap();
    let conditions: Vec<_> = packed_cache::list(&folder.0).unwrap().into_iter().map(|m| m.condition).collect();
    assert!(conditions.len() == 2 && conditions.contains(&Condition::Unfinished), "{conditions:?}");
    assert!(!folder.0.folder.join(&dead).exists());

    // A model that is mapped stays what it is.
    let model = Model::load(&GgufFile::open(&file.0).unwrap(), &folder.options(), &mut |_, _| true).unwrap();
    assert_eq!(model.weights_from(), WeightsFrom::Cache);
    assert_eq!(packed_cache::clear(&folder.0).unwrap().len(), 1);
    assert_eq!(bits(&logits(model)), bits(&expected));
    let left: Vec<_> = folder.files().into_iter().filter_map(|f| Some(f.file_name()?.to_str()?.to_owned())).collect();
    assert_eq!(left, [&alive, other]);
    drop(writer);
    assert!(packed_cache::list(&folder.0).unwrap().is_empty());
}

#[test]
fn earlier_states_of_a_model_file_are_deleted_when_they_are_old() {
    let (file, folder) = (small("earlier"), Folder::new("earlier"));
    for (days, left) in [(0, 2), (2, 1)] {
        let _ = packed_cache::clear(&folder.0).unwrap();
        folder.load(&file.0);
        age(&folder.file(), Duration::from_secs(days * 86_400));
        std::thread::sleep(Duration::from_millis(50));
        fs::write(&file.0, fs::read(&file.0).unwrap()).unwrap();
        assert_eq!(folder.load(&file.0).0, WeightsFrom::NewCache);
        assert_eq!(folder.files().len(), left);
    }
}
