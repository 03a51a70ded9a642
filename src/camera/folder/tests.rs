use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;

const LIMIT: u64 = 1000;
/// How long a test waits for what must come. Never waited out unless the test fails.
const SURELY: Duration = Duration::from_secs(20);
/// How long a test waits for what must not come.
const BRIEFLY: Duration = Duration::from_millis(50);

fn options(folder: &Path, once: bool) -> FolderOptions {
    FolderOptions { path: folder.to_path_buf(), once, journal: None, poll: None, max_bytes: LIMIT }
}

fn open(folder: &Path, once: bool) -> Result<Folder, CameraError> {
    Folder::open(options(folder, once))
}

fn watch(folder: &TempDir) -> Folder {
    open(folder.path(), false).unwrap()
}

fn name(camera: &mut Folder, patience: Duration) -> Option<String> {
    match camera.next(patience).unwrap() {
        Next::Frame(frame) => Some(frame.name),
        Next::Idle | Next::End => None,
    }
}

fn source_reason(result: Result<impl std::fmt::Debug, CameraError>) -> String {
    match result.unwrap_err() {
        CameraError::Source { reason, .. } => reason,
        other => panic!("{other}"),
    }
}

#[test]
fn once_hands_over_the_pictures_by_name_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["b.JPG", "a.png", "c.tiff", "notes.txt", ".hidden.jpg", "d.jpg.part", "e.tmp"] {
        fs::write(folder.path().join(name), name).unwrap();
    }
    fs::create_dir(folder.path().join("folder.jpg")).unwrap();
    fs::write(folder.path().join("folder.jpg/inner.jpg"), "inner").unwrap();
    let mut camera = open(folder.path(), true).unwrap();
    for expected in ["a.png", "b.JPG", "c.tiff"] {
        let Next::Frame(frame) = camera.next(Duration::ZERO).unwrap() else { panic!("no {expected}") };
        assert_eq!(frame.name, expected);
        assert!(matches!(&frame.picture, Picture::Encoded(bytes) if bytes == expected.as_bytes()));
    }
    assert!(matches!(camera.next(SURELY).unwrap(), Next::End));
}

#[test]
fn a_frame_was_captured_when_its_file_was_modified() {
    let folder = tempfile::tempdir().unwrap();
    let taken = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let file = File::create(folder.path().join("a.jpg")).unwrap();
    file.set_modified(taken).unwrap();
    let Next::Frame(frame) = open(folder.path(), true).unwrap().next(SURELY).unwrap() else { panic!("no frame") };
    assert_eq!(frame.captured_at, Timestamp::from_second(1_000_000_000).unwrap());
}

#[test]
fn watching_skips_what_was_there_before() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("old.jpg"), "old").unwrap();
    let mut camera = watch(&folder);
    assert!(matches!(camera.next(BRIEFLY).unwrap(), Next::Idle));
    fs::write(folder.path().join("new.jpg"), "new").unwrap();
    assert_eq!(name(&mut camera, SURELY).as_deref(), Some("new.jpg"));
    assert_eq!(name(&mut camera, BRIEFLY), None);
}

#[test]
fn an_old_file_written_anew_is_a_new_picture() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("latest.jpg"), "one").unwrap();
    let mut camera = watch(&folder);
    fs::write(folder.path().join("latest.jpg"), "three").unwrap();
    assert_eq!(name(&mut camera, SURELY).as_deref(), Some("latest.jpg"));
}

#[test]
fn a_file_counts_when_it_is_closed_or_moved_in() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir_in(folder.path()).unwrap();
    let mut camera = watch(&folder);
    let half = File::create(folder.path().join("slow.jpg")).unwrap();
    fs::write(folder.path().join(".quick.jpg"), "hidden").unwrap();
    fs::write(folder.path().join("quick.part"), "temporary").unwrap();
    assert_eq!(name(&mut camera, BRIEFLY), None);
    fs::rename(folder.path().join("quick.part"), folder.path().join("quick.jpg")).unwrap();
    assert_eq!(name(&mut camera, SURELY).as_deref(), Some("quick.jpg"));
    drop(half);
    assert_eq!(name(&mut camera, SURELY).as_deref(), Some("slow.jpg"));
    fs::write(elsewhere.path().join("x.jpg"), "elsewhere").unwrap();
    fs::rename(elsewhere.path().join("x.jpg"), folder.path().join("moved.jpg")).unwrap();
    assert_eq!(name(&mut camera, SURELY).as_deref(), Some("moved.jpg"));
}

#[test]
fn a_picture_renamed_after_it_was_read_is_not_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut camera = watch(&folder);
    fs::write(folder.path().join("a.jpg"), "a").unwrap();
    assert_eq!(name(&mut camera, SURELY).as_deref(), Some("a.jpg"));
    fs::rename(folder.path().join("a.jpg"), folder.path().join("done-a.jpg")).unwrap();
    assert_eq!(name(&mut camera, BRIEFLY), None);
}

#[test]
fn a_picture_renamed_before_it_was_read_comes_under_its_new_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut camera = watch(&folder);
    fs::write(folder.path().join("a.jpg"), "a").unwrap();
    fs::rename(folder.path().join("a.jpg"), folder.path().join("b.jpg")).unwrap();
    assert_eq!(name(&mut camera, SURELY).as_deref(), Some("b.jpg"));
    assert_eq!(name(&mut camera, BRIEFLY), None);
}

#[test]
fn every_file_of_a_burst_comes_exactly_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut camera = watch(&folder);
    let expected: Vec<String> = (0..300).map(|i| format!("burst-{i:03}.jpg")).collect();
    for name in &expected {
        fs::write(folder.path().join(name), name).unwrap();
    }
    let seen: Vec<String> = expected.iter().filter_map(|_| name(&mut camera, SURELY)).collect();
    assert_eq!(seen, expected);
    assert_eq!(name(&mut camera, BRIEFLY), None);
}

#[test]
fn a_file_over_the_limit_is_named_and_the_next_one_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut camera = watch(&folder);
    fs::write(folder.path().join("big.jpg"), vec![0; LIMIT as usize + 1]).unwrap();
    fs::write(folder.path().join("good.jpg"), vec![0; LIMIT as usize]).unwrap();
    let error = camera.next(SURELY).unwrap_err();
    assert!(
        error.to_string().starts_with("frame big.jpg: file of 1001 bytes is over vision.max_bytes = 1000;"),
        "{error}"
    );
    assert_eq!(name(&mut camera, SURELY).as_deref(), Some("good.jpg"));
}

#[test]
fn a_file_that_grows_while_it_is_read_is_held_to_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("growing.jpg");
    fs::write(&path, "short").unwrap();
    let measured = fs::metadata(&path).unwrap();
    fs::write(&path, vec![0; 2 * LIMIT as usize]).unwrap();
    assert!(read(&path, &measured, LIMIT).unwrap_err().contains("over vision.max_bytes"));
}

#[test]
fn a_folder_that_cannot_be_used_is_refused_with_the_cure() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(source_reason(open(&file, false)).contains("must name the folder"));
    assert!(source_reason(open(&folder.path().join("missing"), true)).contains("create it"));
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read_dir(&closed).is_ok() {
        eprintln!("skipped: this user reads every folder (root)");
    } else {
        assert!(source_reason(open(&closed, false)).contains("permission"));
    }
}

#[test]
fn a_folder_that_goes_away_ends_the_source() {
    for rename in [false, true] {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("frames");
        fs::create_dir(&folder).unwrap();
        let mut camera = open(&folder, false).unwrap();
        if rename {
            fs::rename(&folder, parent.path().join("renamed")).unwrap();
        } else {
            fs::remove_dir(&folder).unwrap();
        }
        assert!(source_reason(camera.next(SURELY)).contains("create it again"));
    }
}

#[test]
fn a_folder_that_goes_away_with_the_one_above_it_ends_the_source_too() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("above/frames");
    fs::create_dir_all(&folder).unwrap();
    let mut camera = open(&folder, false).unwrap();
    assert_eq!(name(&mut camera, BRIEFLY), None);
    fs::rename(parent.path().join("above"), parent.path().join("moved")).unwrap();
    fs::write(parent.path().join("moved/frames/a.jpg"), "a").unwrap();
    assert!(source_reason(camera.next(SURELY)).contains("create it"));
}

#[test]
fn what_the_kernel_s_queue_lost_is_found_by_listing() {
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap_or_default();
    let Some(limit) = limit.trim().parse().ok().filter(|limit: &usize| *limit <= 65_536) else {
        eprintln!("skipped: the queue of inotify is too long to fill here");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("old.jpg"), "old").unwrap();
    let mut camera = watch(&folder);
    // Two names in turn, as equal events in a row are merged.
    for i in 0..=limit {
        fs::write(folder.path().join(["a.txt", "b.txt"][i % 2]), "").unwrap();
    }
    fs::write(folder.path().join("lost.jpg"), "lost").unwrap();
    assert_eq!(name(&mut camera, SURELY).as_deref(), Some("lost.jpg"));
    assert_eq!(name(&mut camera, BRIEFLY), None);
}

/// A folder that remembers in `state`.
fn resumed(folder: &TempDir, state: &TempDir, once: bool) -> Folder {
    Folder::open(FolderOptions { journal: Some(state.path().join("folder")), ..options(folder.path(), once) }).unwrap()
}

/// The next frame's name, settled or not.
fn handle(camera: &mut Folder, settle: bool) -> Option<String> {
    match camera.next(SURELY).unwrap() {
        Next::Frame(frame) => {
            if settle {
                frame.receipt.unwrap().settle();
            }
            Some(frame.name)
        }
        Next::Idle | Next::End => None,
    }
}

#[test]
fn what_was_done_is_remembered_under_any_name_and_what_was_not_comes_again() {
    for once in [true, false] {
        let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for name in ["a.jpg", "b.jpg", "c.jpg"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let mut camera = resumed(&folder, &state, once);
        assert_eq!(handle(&mut camera, true).as_deref(), Some("a.jpg"));
        assert_eq!(handle(&mut camera, false).as_deref(), Some("b.jpg"));
        drop(camera); // killed with b in hand
        fs::rename(folder.path().join("a.jpg"), folder.path().join("renamed.jpg")).unwrap();
        fs::write(folder.path().join("while-away.jpg"), "new").unwrap();
        let mut camera = resumed(&folder, &state, once);
        for name in ["b.jpg", "c.jpg", "while-away.jpg"] {
            assert_eq!(handle(&mut camera, true).as_deref(), Some(name), "once = {once}");
        }
        drop(camera);
        fs::write(folder.path().join("c.jpg"), "another content").unwrap();
        let mut camera = resumed(&folder, &state, once);
        assert_eq!(handle(&mut camera, true).as_deref(), Some("c.jpg"));
        match camera.next(BRIEFLY).unwrap() {
            Next::End => assert!(once),
            Next::Idle => assert!(!once),
            Next::Frame(frame) => panic!("{} comes again", frame.name),
        }
    }
}

#[test]
fn what_cannot_be_read_is_not_tried_again_after_a_restart() {
    let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(folder.path().join("big.jpg"), vec![0; LIMIT as usize + 1]).unwrap();
    assert!(matches!(resumed(&folder, &state, true).next(SURELY), Err(CameraError::Frame { .. })));
    assert!(matches!(resumed(&folder, &state, true).next(SURELY), Ok(Next::End)));
}

#[test]
fn a_folder_that_is_listed_finds_what_no_event_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let poll = Some(Duration::from_millis(10));
    let mut camera = Folder::open(FolderOptions { poll, ..options(folder.path(), false) }).unwrap();
    assert_eq!(name(&mut camera, BRIEFLY), None);
    // A link made under a picture's name is neither closed nor moved, like a file that another host has written.
    let elsewhere = tempfile::NamedTempFile::new_in(folder.path()).unwrap();
    fs::hard_link(elsewhere.path(), folder.path().join("linked.jpg")).unwrap();
    assert_eq!(name(&mut camera, SURELY).as_deref(), Some("linked.jpg"));
    assert_eq!(name(&mut camera, BRIEFLY), None);
}

#[test]
fn a_hundred_thousand_files_come_once_each() {
    const FILES: usize = 100_000;
    let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let name = |number: usize| format!("{number:06}.jpg");
    for number in 0..FILES {
        File::create(folder.path().join(name(number))).unwrap();
    }
    let mut camera = resumed(&folder, &state, true);
    for number in 0..FILES / 2 {
        assert_eq!(handle(&mut camera, true), Some(name(number)));
    }
    let mut camera = resumed(&folder, &state, false);
    for number in FILES / 2..FILES {
        assert_eq!(handle(&mut camera, true), Some(name(number)));
    }
    assert!(fs::metadata(state.path().join("folder")).unwrap().len() < 100 * FILES as u64);
    File::create(folder.path().join("last.jpg")).unwrap();
    assert_eq!(handle(&mut camera, true).as_deref(), Some("last.jpg"));
}
