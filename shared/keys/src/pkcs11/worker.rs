//! The child process of one token. It alone holds the PIN and the vendor's library; it does what its parent asks over the socket that is
//! its standard input, and ends when that closes.

use std::{
    io::{self, BufReader},
    os::{fd::AsFd, unix::net::UnixStream},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, atomic::AtomicBool},
    thread,
    time::Duration,
};

use domain::failure::KeysFailure;
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::{DumpableBehavior, Resource, Rlimit, Signal, getpid, kill_process, set_dumpable_behavior, setrlimit},
};
use zeroize::Zeroizing;

use super::{
    Options,
    bench::Bench,
    fault::Fault,
    frame::{self, Answer, OPENING, Order, Outlet, Request, Response, lock},
    station::Station,
};

/// Sessions that a token may be used with.
const SESSIONS: u16 = 256;
/// How long the library may take to end in an orderly way.
const FAREWELL: Duration = Duration::from_secs(2);

/// Serves one token until the parent has gone or the token cannot be opened.
///
/// Fails when the socket does. What fails on the token is answered, not returned.
pub fn run() -> io::Result<()> {
    shut_in()?;
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let watched = socket.try_clone()?;
    let mut requests = BufReader::new(socket.try_clone()?);
    let outlet = Outlet::new(socket);
    let Some(Request {
        call: OPENING,
        order: Order::Open(options),
    }) = frame::read(&mut requests)?
    else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "this is started by a process that uses a token, and by nobody else",
        ));
    };
    thread::Builder::new()
        .name("parent".into())
        .spawn(move || end_with_parent(&watched))?;
    let opened = open(&options);
    let result = match &opened {
        Ok((_, canary)) => Ok(Answer::Opened {
            without_canary: canary.clone(),
        }),
        Err(fault) => Err(fault.clone()),
    };
    outlet.send(&encode(OPENING, result)?, None)?;
    let Ok((bench, _)) = opened else { return Ok(()) };
    let requests = Mutex::new(requests);
    serve(&bench, &options, Desk { requests, outlet })
}

/// Nothing of this process is ever written to disk or looked at by another, and signals that are meant for its parent do not end it.
fn shut_in() -> io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    Ok(())
}

/// Opens the token; says as well why it has no canary key, if it has none.
fn open(options: &Options) -> Result<(Arc<Bench>, Option<String>), Fault> {
    let bench = Arc::new(Bench::open(options)?);
    match Station::new(bench.clone()).ensure_canary() {
        Ok(()) => Ok((bench, None)),
        Err(fault) if fault.spent => Err(fault),
        // A token that takes no new keys still signs with those that it has.
        Err(fault) => Ok((bench, Some(fault.detail))),
    }
}

/// Both ends of the work: whichever session is free reads the next request and sends its answer itself.
struct Desk {
    requests: Mutex<BufReader<UnixStream>>,
    outlet: Outlet,
}

fn serve(bench: &Arc<Bench>, options: &Options, desk: Desk) -> io::Result<()> {
    let desk = Arc::new(desk);
    let mut sessions = Vec::new();
    for number in 0..options.sessions.clamp(1, SESSIONS) {
        let (station, desk) = (Station::new(bench.clone()), desk.clone());
        let session = thread::Builder::new()
            .name(format!("session-{number}"))
            .spawn(move || {
                let worked = catch_unwind(AssertUnwindSafe(|| work(station, &desk)));
                worked.unwrap_or_else(|_| {
                    end_at_once();
                    Ok(())
                })
            })?;
        sessions.push(session);
    }
    for session in sessions {
        if let Ok(worked) = session.join() {
            worked?;
        }
    }
    Ok(())
}

/// When the parent has gone, sessions end what they are at and close, and the library is unloaded. If one of them hangs and will not,
/// there is another way.
fn end_with_parent(socket: &UnixStream) {
    let mut watched = [PollFd::new(socket, PollFlags::RDHUP)];
    while matches!(poll(&mut watched, None), Ok(0) | Err(Errno::INTR)) {}
    thread::sleep(FAREWELL);
    end_at_once();
}

fn work(mut station: Station, desk: &Desk) -> io::Result<()> {
    loop {
        let request = frame::read(&mut *lock(&desk.requests))?;
        let Some(Request { call, order }) = request else {
            return Ok(());
        };
        let result = perform(&mut station, order);
        let response = encode(call, result)?;
        if desk.outlet.send(&response, None).is_err() {
            return Ok(());
        }
    }
}

/// An answer as a frame; where it has no room in one, that is the answer.
fn encode(call: u64, result: Result<Answer, Fault>) -> io::Result<Zeroizing<Vec<u8>>> {
    frame::encode(&Response { call, result }).or_else(|error| {
        let result = Err(Fault::new(KeysFailure::OperationFailed, error));
        frame::encode(&Response { call, result })
    })
}

fn perform(station: &mut Station, order: Order) -> Result<Answer, Fault> {
    match order {
        Order::Open(_) => Err(Fault::new(KeysFailure::OperationFailed, "the token is open already")),
        Order::List => station.list().map(Answer::Keys),
        Order::Find { name } => station.find(&name).map(Answer::Found),
        Order::Generate { name, key_type } => station.generate(&name, key_type).map(Answer::Key),
        Order::Import { name, private_key } => station.import(&name, &private_key.0).map(Answer::Key),
        Order::Sign {
            name,
            algorithm,
            message,
        } => station.sign(&name, algorithm, &message).map(Answer::Signature),
        Order::SignCanary { message } => station.sign_canary(&message).map(Answer::Canary),
        Order::Destroy { name } => station.destroy(&name).map(|()| Answer::Done),
    }
}

/// Ends this process without asking the library.
fn end_at_once() {
    let _ = kill_process(getpid(), Signal::KILL);
}
