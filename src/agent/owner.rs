//! What the machine's owner wants while the agent runs: that settings are read anew, and a pause. Both
//! stand on the disk, so that a thread of its own looks.

use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;

use super::Shared;
use super::event::{Event, Pause};
use crate::clock;
use crate::config::{Config, Problems, read_token};
use crate::store::{self, OwnersPause, PAUSE};

/// Reads all settings anew, as at the start.
pub(crate) type Reread<'a> = dyn Fn() -> Result<Config, Problems> + Sync + 'a;

const RELOAD: u8 = b'r';
const LOOK: u8 = b'l';

/// Asks the owner's thread for something, and never waits for it.
#[derive(Debug)]
pub(super) struct Ask(PipeWriter);

/// The pipe to the owner's thread, which ends with the last [`Ask`].
pub(super) fn pipe() -> io::Result<(PipeReader, Ask)> {
    let (reader, writer) = io::pipe()?;
    rustix::io::ioctl_fionbio(&reader, true)?;
    rustix::io::ioctl_fionbio(&writer, true)?;
    Ok((reader, Ask(writer)))
}

impl Ask {
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Have the settings read anew.
    pub(super) fn reload(&self) {
        // A full pipe has been asked often enough.
        (&self.0).write_all(&[RELOAD]).ok();
    }

    /// Look whether there is a pause: the wall clock may have been set, or the watch not work.
    pub(super) fn look(&self) {
        (&self.0).write_all(&[LOOK]).ok();
    }
}

pub(super) fn run(
    shared: &Shared,
    reread: &Reread<'_>,
    asked: &PipeReader,
    events: &Sender<Event>,
) {
    let dir = shared.config().identity.state_dir.clone();
    let failed = |error| log::debug!("the state directory cannot be watched: {error}");
    let watch = watch(&dir).map_err(failed).ok();
    let mut said = None;
    while let Some(wanted) = wait(asked, watch.as_ref()) {
        if wanted.reload {
            reload(shared, reread, events);
        }
        if let Some(event) = wanted.look.then(|| look(&dir, &mut said)).flatten() {
            // Without a loop the agent is ending.
            events.send(event).ok();
        }
    }
}

/// Everything that can happen to the pause's file, by a rename or by an editor.
fn watch(dir: &Path) -> io::Result<OwnedFd> {
    use inotify::{CreateFlags, WatchFlags};
    let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    let changes = WatchFlags::CLOSE_WRITE
        | WatchFlags::MOVED_TO
        | WatchFlags::MOVED_FROM
        | WatchFlags::DELETE;
    inotify::add_watch(&watch, dir, changes)?;
    Ok(watch)
}

/// What there is to do.
#[derive(Default)]
struct Wanted {
    reload: bool,
    look: bool,
}

/// Waits for something to do; nothing at the end.
fn wait(asked: &PipeReader, watch: Option<&OwnedFd>) -> Option<Wanted> {
    let mut fds = vec![PollFd::from_borrowed_fd(asked.as_fd(), PollFlags::IN)];
    fds.extend(watch.map(|watch| PollFd::new(watch, PollFlags::IN)));
    match poll(&mut fds, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(_) => return None,
    }
    let mut wanted = Wanted { look: watch.is_some_and(saw_pause), ..Wanted::default() };
    let mut buffer = [0; 64];
    match (&mut &*asked).read(&mut buffer) {
        Ok(0) => return None,
        Ok(length) => {
            wanted.reload = buffer[..length].contains(&RELOAD);
            wanted.look |= buffer[..length].contains(&LOOK);
        }
        // It was the watch that has seen something.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(_) => return None,
    }
    Some(wanted)
}

/// Whether something happened to the pause's file, among all that happens in the state directory.
fn saw_pause(watch: &OwnedFd) -> bool {
    let mut buffer = [MaybeUninit::uninit(); 1024];
    let mut reader = inotify::Reader::new(watch, &mut buffer);
    let mut saw = false;
    while let Ok(event) = reader.next() {
        // Of too many events none has a name.
        saw |= event.file_name().is_none_or(|name| name.to_bytes() == PAUSE.as_bytes());
    }
    saw
}

/// The pause as it stands. What cannot be read leaves things as they are, and is said once.
pub(super) fn look(dir: &Path, said: &mut Option<String>) -> Option<Event> {
    match store::read_pause(dir) {
        Ok(pause) => {
            *said = None;
            let pause = pause.and_then(|pause| settle(&pause, clock::since_boot(), clock::wall()));
            Some(Event::Pause(pause))
        }
        Err(error) => {
            let error = error.to_string();
            if said.as_ref() != Some(&error) {
                log::warn!("{error}: `worker resume` removes it");
                *said = Some(error);
            }
            None
        }
    }
}

/// The pause on the loop's clock; none if it is over.
fn settle(pause: &OwnersPause, boot: Duration, wall: SystemTime) -> Option<Pause> {
    let until = match pause.left(wall) {
        Some(left) if left.is_zero() => return None,
        left => left.map(|left| boot + left),
    };
    Some(Pause { words: pause.words(), until })
}

fn reload(shared: &Shared, reread: &Reread<'_>, events: &Sender<Event>) {
    let since = clock::monotonic().as_micros();
    shared.notify.tell(&format!("RELOADING=1\nMONOTONIC_USEC={since}"));
    if let Err(problems) = renew(shared, reread, events) {
        let problems = problems.to_string().replace('\n', "; ");
        log::error!("settings not taken over, the old ones go on: {problems}");
    }
    shared.notify.tell("READY=1");
}

fn renew(shared: &Shared, reread: &Reread<'_>, events: &Sender<Event>) -> Result<(), Problems> {
    let new = reread()?;
    let token = new.connection.token_file.as_deref().map(read_token).transpose()?;
    let (config, mut changes) = shared.config().renewed(new);
    let rules = config.rules.clone();
    if shared.backend.renew_token(config.connection.token_file.clone(), token) {
        changes.now.push("token");
    }
    *shared.config.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    match changes.now.as_slice() {
        [] => log::info!("settings read again: nothing new holds from now on"),
        now => log::info!("settings read again: {}", now.join(", ")),
    }
    if !changes.later.is_empty() {
        log::warn!("takes effect at the next start: {}", changes.later.join(", "));
    }
    // Without a loop the agent is ending.
    events.send(Event::Reloaded(Box::new(rules))).ok();
    if changes.is_registered() {
        events.send(Event::MachineChanged).ok();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: Duration = Duration::from_secs(5000);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn pause(until: Option<u64>) -> OwnersPause {
        OwnersPause::new(at(1000), until.map(at), Some("gaming"))
    }

    fn ends(until: Option<u64>, wall: u64) -> Option<Option<u64>> {
        let pause = settle(&pause(until), BOOT, at(wall))?;
        Some(pause.until.map(|until| until.as_secs()))
    }

    #[test]
    fn a_pause_ends_as_long_from_now_as_its_end_is_away() {
        assert_eq!(ends(None, 1000), Some(None));
        assert_eq!(ends(Some(4600), 1000), Some(Some(8600)));
        assert_eq!(ends(Some(4600), 4000), Some(Some(5600)));
        assert_eq!(ends(Some(4600), 4600), None);
        assert_eq!(ends(Some(4600), 9999), None);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_lengthen_a_pause() {
        assert_eq!(ends(Some(4600), 0), Some(Some(8600)));
    }

    #[test]
    fn a_pause_says_whose_it_is_why_and_how_long() {
        let words = |pause: OwnersPause| pause.words();
        assert_eq!(words(pause(Some(4600))), "paused by its owner: gaming, until 01:16 UTC");
        let next_day = "paused by its owner: gaming, until 1970-01-02 00:10 UTC";
        assert_eq!(words(pause(Some(87_000))), next_day);
        assert_eq!(words(OwnersPause::new(at(0), None, None)), "paused by its owner");
        let forged = OwnersPause::new(at(0), None, Some("a\nERROR b"));
        assert_eq!(words(forged), "paused by its owner: a ERROR b");
    }
}
