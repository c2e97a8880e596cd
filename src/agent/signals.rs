//! Signals become events: TERM and INT ask for a drain, QUIT for an end now. HUP of a service asks for
//! its settings to be read again. What means nothing here is heard and not obeyed, or it would end us: by a
//! handler, since what is ignored would be ignored by every job's program too.

use std::io::{self, IsTerminal as _};
use std::sync::mpsc::Sender;

use signal_hook::consts::{
    SIGALRM, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXFSZ,
};
use signal_hook::iterator::{Handle, Signals};

use super::event::{Event, StopRequest};
use super::owner::Ask;

const MEANT: [i32; 4] = [SIGTERM, SIGINT, SIGHUP, SIGQUIT];

/// Those of whoever mistakes us for another program, of timers, and of a file that is too large, where the
/// write fails as well.
const MEANINGLESS: [i32; 9] =
    [SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGXFSZ, libc::SIGPWR, libc::SIGSTKFLT];

pub(super) struct Watch {
    signals: Signals,
    /// Looked at beforehand: a terminal that has hung up is none any more.
    on_terminal: bool,
}

/// Ends the watching thread when dropped; it would otherwise wait for one more signal.
pub(super) struct Closer(Handle);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.close();
    }
}

pub(super) fn watch() -> io::Result<Watch> {
    let signals = Signals::new(MEANT.iter().chain(&MEANINGLESS))?;
    Ok(Watch { signals, on_terminal: io::stdin().is_terminal() })
}

impl Watch {
    pub(super) fn closer(&self) -> Closer {
        Closer(self.signals.handle())
    }

    pub(super) fn run(mut self, owner: &Ask, events: &Sender<Event>) {
        for signal in self.signals.forever() {
            let request = match signal {
                signal if MEANINGLESS.contains(&signal) => {
                    log::debug!("signal {signal} means nothing here");
                    continue;
                }
                SIGQUIT => StopRequest::Cancel,
                // With a terminal it says that this is going away.
                SIGHUP if !self.on_terminal => {
                    owner.reload();
                    continue;
                }
                _ => StopRequest::Drain,
            };
            if events.send(Event::Stop(request)).is_err() {
                return;
            }
        }
    }
}
