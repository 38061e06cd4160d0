//! Several loads of one model at once.
use super::*;
use std::sync::Barrier;

#[test]
fn threads_load_at_once() {
    let (file, folder) = (large("threads"), Folder::new("threads"));
    let (_, expected) = load(&file.0, &options(2)).unwrap();
    for _ in 0..3 {
        let start = Barrier::new(6);
        std::thread::scope(|s| {
            for _ in 0..6 {
                s.spawn(|| {
                    start.wait();
                    assert_eq!(bits(&folder.load(&file.0).1), bits(&expected));
                });
            }
        });
        folder.file();
        assert_eq!(folder.load(&file.0).0, WeightsFrom::Cache);
        packed_cache::clear(&folder.0).unwrap();
    }
}

/// Children load while others clear the cache.
#[test]
fn processes_load_at_once() {
    const CHILD: &str = "FASTLLM_TEST_SHARED_CACHE";
    if let Some(given) = std::env::var_os(CHILD) {
        let given = PathBuf::from(given);
        let settings = CacheSettings { folder: given.with_extension("cache"), least_bytes: 0, ..CacheSettings::in_folder(PathBuf::new()) };
        let options = LoadOptions { packed_cache: Some(CacheSettings { settled: Duration::ZERO, ..settings }), ..options(1) };
        let expected = bits(&load(&given, &LoadOptions { packed_cache: None, ..options.clone() }).unwrap().1);
        for i in 0..12 {
            assert_eq!(bits(&load(&given, &options).unwrap().1), expected);
            if i % 4 == 3 {
                packed_cache::clear(options.packed_cache.as_ref().unwrap()).unwrap();
            }
        }
        return;
    }
    let file = small("processes");
    let folder = Folder(CacheSettings { folder: file.0.with_extension("cache"), ..Folder::new("processes").0.clone() });
    let child = || {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sharing::processes_load_at_once", "--nocapture", "--test-threads=1"])
            .env(CHILD, &file.0)
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..4).map(|_| child()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    folder.load(&file.0);
    folder.file();
    assert_eq!(folder.load(&file.0).0, WeightsFrom::Cache);
}

/// While one load writes, another one of the same model packs into memory.
#[test]
fn a_second_writer_does_without_the_cache() {
    let (file, folder) = (small("second"), Folder::new("second"));
    let mut second = None;
    let mut progress = |_, _| {
        let load = || Model::load(&GgufFile::open(&file.0).unwrap(), &folder.options(), &mut |_, _| true).unwrap().weights_from();
        second.get_or_insert_with(load);
        true
    };
    let first = Model::load(&GgufFile::open(&file.0).unwrap(), &folder.options(), &mut progress).unwrap().weights_from();
    assert!(packed_cache::finish(Duration::from_secs(60)));
    assert_eq!((first, second), (WeightsFrom::NewCache, Some(WeightsFrom::ModelFile)));
    assert_eq!(folder.load(&file.0).0, WeightsFrom::Cache);
}
