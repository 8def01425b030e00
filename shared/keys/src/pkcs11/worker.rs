//! The child process of one token. It alone holds the PIN and the vendor's library; it does what its parent asks over the socket that is
//! its standard input, and ends when that closes.

use std::{
    io::{self, BufReader, BufWriter, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::AtomicBool,
        mpsc::{Receiver, Sender, channel, sync_channel},
    },
    thread,
    time::Duration,
};

use domain::failure::KeysFailure;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, getpid, kill_process, set_dumpable_behavior, setrlimit,
};

use super::{
    Options,
    bench::Bench,
    fault::Fault,
    frame::{self, Answer, OPENING, Order, Request, Response},
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
    let mut requests = BufReader::new(socket.try_clone()?);
    let mut responses = BufWriter::new(socket);
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
    let opened = open(&options);
    let result = match &opened {
        Ok((_, canary)) => Ok(Answer::Opened {
            without_canary: canary.clone(),
        }),
        Err(fault) => Err(fault.clone()),
    };
    frame::write(&mut responses, &Response { call: OPENING, result })?;
    responses.flush()?;
    let Ok((bench, _)) = opened else { return Ok(()) };
    serve(&bench, &options, &mut requests, responses)
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

fn serve(
    bench: &Arc<Bench>,
    options: &Options,
    requests: &mut BufReader<UnixStream>,
    responses: BufWriter<UnixStream>,
) -> io::Result<()> {
    let sessions = options.sessions.clamp(1, SESSIONS);
    let (give, take) = sync_channel::<Request>(usize::from(sessions));
    let take = Arc::new(Mutex::new(take));
    let (answer, answers) = channel::<Response>();
    let writer = thread::Builder::new()
        .name("answers".into())
        .spawn(move || write_all(&answers, responses))?;
    for number in 0..sessions {
        let (station, take, answer) = (Station::new(bench.clone()), take.clone(), answer.clone());
        thread::Builder::new()
            .name(format!("session-{number}"))
            .spawn(move || {
                if catch_unwind(AssertUnwindSafe(|| work(station, &take, &answer))).is_err() {
                    end_at_once();
                }
            })?;
    }
    drop(answer);
    let ended = loop {
        match frame::read(requests) {
            Ok(Some(request)) => {
                if give.send(request).is_err() {
                    break Ok(());
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    // Sessions end what they are at, close, and the library is unloaded. If it will not, there is another way.
    drop(give);
    thread::spawn(|| {
        thread::sleep(FAREWELL);
        end_at_once();
    });
    let _ = writer.join();
    ended
}

fn work(mut station: Station, requests: &Mutex<Receiver<Request>>, answers: &Sender<Response>) {
    loop {
        let request = requests.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Request { call, order }) = request else { return };
        let result = perform(&mut station, order);
        if answers.send(Response { call, result }).is_err() {
            return;
        }
    }
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

/// Writes answers as they come, as many at a time as there are.
fn write_all(answers: &Receiver<Response>, mut into: BufWriter<UnixStream>) {
    while let Ok(first) = answers.recv() {
        let written = std::iter::once(first)
            .chain(answers.try_iter())
            .try_for_each(|response| frame::write(&mut into, &response))
            .and_then(|()| into.flush());
        if written.is_err() {
            return;
        }
    }
}

/// Ends this process without asking the library.
fn end_at_once() {
    let _ = kill_process(getpid(), Signal::KILL);
}
