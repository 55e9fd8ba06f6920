//! libpam, loaded when the program starts: building needs nothing of it, and a host without it gets an answer that says so.
//!
//! One [`Pam::check`] is one transaction: start, authenticate, account, end. PAM asks for the password by calling back
//! ([`converse`]); what is answered is decided in [`Speaker`].

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use zeroize::{Zeroize as _, Zeroizing};

use crate::said::{Code, Stage};

const LIBRARY: &str = "libpam.so.0";

// Linux-PAM's <security/_pam_types.h>.
const PAM_SILENT: c_int = 0x8000;
const PAM_DISALLOW_NULL_AUTHTOK: c_int = 0x0001;
const PAM_USER: c_int = 2;
const PAM_RHOST: c_int = 4;
const PAM_PROMPT_ECHO_OFF: c_int = 1;
const PAM_ERROR_MSG: c_int = 3;
const PAM_TEXT_INFO: c_int = 4;
const PAM_BUF_ERR: c_int = 5;
const PAM_CONV_ERR: c_int = 19;
const PAM_MAX_NUM_MSG: usize = 32;

/// How often one transaction may ask for the password. A stack asks once, or once for each module that checks it.
const PROMPTS: u32 = 4;

/// Nobody who has not set a password gets in, and nothing is said to a terminal.
const FLAGS: c_int = PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK;

#[repr(C)]
struct Message {
    style: c_int,
    text: *const c_char,
}

#[repr(C)]
struct Response {
    text: *mut c_char,
    /// Without use in PAM; zero.
    code: c_int,
}

type Converse = unsafe extern "C" fn(c_int, *mut *const Message, *mut *mut Response, *mut c_void) -> c_int;

#[repr(C)]
struct Conversation {
    answer: Converse,
    data: *mut c_void,
}

type Handle = *mut c_void;

type Start = unsafe extern "C" fn(*const c_char, *const c_char, *const Conversation, *mut Handle) -> c_int;
type Act = unsafe extern "C" fn(Handle, c_int) -> c_int;
type SetItem = unsafe extern "C" fn(Handle, c_int, *const c_void) -> c_int;
type GetItem = unsafe extern "C" fn(Handle, c_int, *mut *const c_void) -> c_int;

/// libpam's functions. Its handles are not shared, so several threads may use it at once.
#[derive(Debug)]
pub(crate) struct Pam {
    start: Start,
    authenticate: Act,
    account: Act,
    set_item: SetItem,
    get_item: GetItem,
    end: Act,
    /// The functions are in it.
    _library: Library,
}

#[derive(Debug, thiserror::Error)]
#[error("load {LIBRARY}")]
pub(crate) struct NotLoaded(#[source] libloading::Error);

/// What one transaction is about.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) service: CString,
    pub(crate) user: CString,
    pub(crate) host: CString,
    /// Without a NUL in it.
    pub(crate) password: Zeroizing<Vec<u8>>,
}

/// PAM's refusal, or its failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct No {
    pub(crate) stage: Stage,
    pub(crate) code: Code,
}

impl Pam {
    pub(crate) fn load() -> Result<Self, NotLoaded> {
        // SAFETY: loading runs the initialisers of libpam, which have no condition.
        let library = unsafe { Library::open(Some(LIBRARY), RTLD_NOW | RTLD_LOCAL) }.map_err(NotLoaded)?;
        // SAFETY: these are the types that <security/pam_appl.h> gives these names in every version of libpam.so.0.
        unsafe {
            Ok(Self {
                start: *library.get::<Start>(b"pam_start\0").map_err(NotLoaded)?,
                authenticate: *library.get::<Act>(b"pam_authenticate\0").map_err(NotLoaded)?,
                account: *library.get::<Act>(b"pam_acct_mgmt\0").map_err(NotLoaded)?,
                set_item: *library.get::<SetItem>(b"pam_set_item\0").map_err(NotLoaded)?,
                get_item: *library.get::<GetItem>(b"pam_get_item\0").map_err(NotLoaded)?,
                end: *library.get::<Act>(b"pam_end\0").map_err(NotLoaded)?,
                _library: library,
            })
        }
    }

    /// The name that PAM knows the user by, if the password is right and the account may be used.
    pub(crate) fn check(&self, question: &Question) -> Result<CString, No> {
        let speaker = Speaker::new(&question.password);
        // Ends before `speaker`, which it points at: what is declared later is dropped earlier.
        let mut transaction = Transaction::start(self, question, &speaker)?;
        if !question.host.is_empty() {
            transaction.host(&question.host)?;
        }
        transaction.act(Stage::Authenticate, self.authenticate)?;
        transaction.act(Stage::Account, self.account)?;
        transaction.user()
    }
}

struct Transaction<'a> {
    pam: &'a Pam,
    handle: Handle,
    /// What the last call said. Modules are told at the end.
    last: Code,
}

impl<'a> Transaction<'a> {
    fn start(pam: &'a Pam, question: &Question, speaker: &'a Speaker<'_>) -> Result<Self, No> {
        let conversation = Conversation { answer: converse, data: ptr::from_ref(speaker).cast_mut().cast() };
        let mut handle = ptr::null_mut();
        // SAFETY: the texts end in NUL and are copied, as is `conversation`; `speaker`, which stays referred to, is
        // borrowed for as long as the transaction lives.
        let code = unsafe {
            (pam.start)(
                question.service.as_ptr(),
                question.user.as_ptr(),
                &raw const conversation,
                &raw mut handle,
            )
        };
        Stage::Start.done(code)?;
        Ok(Self { pam, handle, last: Code::SUCCESS })
    }

    fn host(&mut self, host: &CStr) -> Result<(), No> {
        // SAFETY: the handle is live, and PAM_RHOST takes a text that ends in NUL, of which PAM makes a copy.
        Stage::Start.done(unsafe { (self.pam.set_item)(self.handle, PAM_RHOST, host.as_ptr().cast()) })
    }

    fn act(&mut self, stage: Stage, function: Act) -> Result<(), No> {
        // SAFETY: the handle is live, and used by this thread alone.
        let code = unsafe { function(self.handle, FLAGS) };
        self.last = Code(code);
        stage.done(code)
    }

    fn user(&self) -> Result<CString, No> {
        let mut item = ptr::null();
        // SAFETY: the handle is live, and the place for the result is too.
        Stage::Name.done(unsafe { (self.pam.get_item)(self.handle, PAM_USER, &raw mut item) })?;
        if item.is_null() {
            return Err(No { stage: Stage::Name, code: Code::SUCCESS });
        }
        // SAFETY: PAM_USER is a text that ends in NUL. It is PAM's until the next call: copied before that.
        Ok(unsafe { CStr::from_ptr(item.cast()) }.to_owned())
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // SAFETY: the handle is live, and nobody uses it after this. What PAM keeps of the password it wipes here.
        // Its result says whether modules could clean up, and changes nothing.
        unsafe { (self.pam.end)(self.handle, self.last.0) };
    }
}

/// Decides what PAM is answered: the password, to one question.
struct Speaker<'a> {
    password: &'a [u8],
    /// The question to which the password was the answer. A module that asks another wants something else: a code, a
    /// new password. It doesn't get the old one.
    asked: RefCell<Option<CString>>,
    times: Cell<u32>,
}

#[derive(Debug, PartialEq, Eq)]
enum Reply<'a> {
    Password(&'a [u8]),
    /// The message was none to be answered.
    Nothing,
}

#[derive(Debug, PartialEq, Eq)]
struct Unanswered;

impl<'a> Speaker<'a> {
    fn new(password: &'a [u8]) -> Self {
        Self { password, asked: RefCell::new(None), times: Cell::new(0) }
    }

    fn reply(&self, style: c_int, text: &CStr) -> Result<Reply<'a>, Unanswered> {
        match style {
            PAM_PROMPT_ECHO_OFF => {
                let mut asked = self.asked.borrow_mut();
                let same = asked.get_or_insert_with(|| text.to_owned()).as_c_str() == text;
                self.times.set(self.times.get() + 1);
                if same && self.times.get() <= PROMPTS {
                    Ok(Reply::Password(self.password))
                } else {
                    Err(Unanswered)
                }
            }
            PAM_ERROR_MSG | PAM_TEXT_INFO => Ok(Reply::Nothing),
            // With echo a module asks for a name or a code, which isn't here. An empty answer might be taken for one.
            _ => Err(Unanswered),
        }
    }
}

/// What libpam calls with one or several messages. The answers are in memory of malloc, which the module frees.
unsafe extern "C" fn converse(
    count: c_int,
    messages: *mut *const Message,
    responses: *mut *mut Response,
    data: *mut c_void,
) -> c_int {
    let count = usize::try_from(count).unwrap_or_default();
    if count == 0 || count > PAM_MAX_NUM_MSG || messages.is_null() || responses.is_null() {
        return PAM_CONV_ERR;
    }
    // SAFETY: `data` is what pam_start was given: a speaker that lives until pam_end, and is only ever shared.
    let speaker = unsafe { &*data.cast::<Speaker<'_>>() };
    // SAFETY: calloc has no condition. All zeroes is a valid answer: none.
    let answers = unsafe { libc::calloc(count, size_of::<Response>()) }.cast::<Response>();
    if answers.is_null() {
        return PAM_BUF_ERR;
    }
    for place in 0..count {
        // SAFETY: on Linux-PAM `messages` is `count` pointers at messages, each with a text that ends in NUL or is null.
        let reply = unsafe {
            let message = &**messages.add(place);
            let text = if message.text.is_null() { c"" } else { CStr::from_ptr(message.text) };
            speaker.reply(message.style, text)
        };
        let copied = match reply {
            Ok(Reply::Nothing) => Ok(ptr::null_mut()),
            Ok(Reply::Password(password)) => copy(password).ok_or(PAM_BUF_ERR),
            Err(Unanswered) => Err(PAM_CONV_ERR),
        };
        match copied {
            // SAFETY: `place` is within the `count` answers allocated above.
            Ok(text) => unsafe { (*answers.add(place)).text = text },
            Err(code) => {
                // SAFETY: as allocated above, and not given to anybody.
                unsafe { discard(answers, place) };
                return code;
            }
        }
    }
    // SAFETY: `responses` is where the caller wants them; it isn't null.
    unsafe { *responses = answers };
    0
}

/// `password` and a NUL, in memory of malloc.
fn copy(password: &[u8]) -> Option<*mut c_char> {
    // SAFETY: calloc has no condition; one byte more than what is copied, and that one is the zero at the end.
    unsafe {
        let text = libc::calloc(password.len() + 1, 1).cast::<u8>();
        if text.is_null() {
            return None;
        }
        ptr::copy_nonoverlapping(password.as_ptr(), text, password.len());
        Some(text.cast())
    }
}

/// Wipes and frees the first `count` of `answers`, and then all.
///
/// # Safety
/// They are as [`converse`] allocates them, and nobody else has them.
unsafe fn discard(answers: *mut Response, count: usize) {
    for place in 0..count {
        // SAFETY: what isn't null was made by `copy`, and is as long as its text.
        unsafe {
            let text = (*answers.add(place)).text;
            if !text.is_null() {
                std::slice::from_raw_parts_mut(text, libc::strlen(text)).zeroize();
                libc::free(text.cast());
            }
        }
    }
    // SAFETY: made by calloc.
    unsafe { libc::free(answers.cast()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    const ECHO_ON: c_int = 2;

    #[test]
    fn the_password_answers_one_question() {
        let speaker = Speaker::new(b"p");
        assert_eq!(speaker.reply(PAM_PROMPT_ECHO_OFF, c"Password: "), Ok(Reply::Password(b"p")));
        assert_eq!(speaker.reply(PAM_PROMPT_ECHO_OFF, c"New password: "), Err(Unanswered));
        assert_eq!(speaker.reply(PAM_PROMPT_ECHO_OFF, c"Password: "), Ok(Reply::Password(b"p")));
    }

    #[test]
    fn a_module_that_asks_on_and_on_gets_no_answer() {
        let speaker = Speaker::new(b"p");
        let answered = (0..20).filter(|_| speaker.reply(PAM_PROMPT_ECHO_OFF, c"Password: ").is_ok());
        assert_eq!(answered.count(), PROMPTS as usize);
    }

    #[test]
    fn only_questions_without_echo_are_answered() {
        let speaker = Speaker::new(b"p");
        assert_eq!(speaker.reply(ECHO_ON, c"login: "), Err(Unanswered));
        assert_eq!(speaker.reply(PAM_TEXT_INFO, c"Welcome"), Ok(Reply::Nothing));
        assert_eq!(speaker.reply(PAM_ERROR_MSG, c"Expires soon"), Ok(Reply::Nothing));
        assert_eq!(speaker.reply(7, c"binary"), Err(Unanswered));
    }

    /// Calls back as libpam does; the texts of the answers, or the code.
    fn called(password: &[u8], messages: &[(c_int, &CStr)]) -> Result<Vec<Option<CString>>, c_int> {
        let speaker = Speaker::new(password);
        let messages: Vec<_> =
            messages.iter().map(|(style, text)| Message { style: *style, text: text.as_ptr() }).collect();
        let mut pointers: Vec<*const Message> = messages.iter().map(ptr::from_ref).collect();
        let count = c_int::try_from(pointers.len()).unwrap();
        let mut answers = ptr::null_mut();
        let data = ptr::from_ref(&speaker).cast_mut().cast();
        // SAFETY: as libpam calls it: `count` messages, a place for the answers, and the speaker.
        let code = unsafe { converse(count, pointers.as_mut_ptr(), &raw mut answers, data) };
        if code != 0 {
            assert!(answers.is_null());
            return Err(code);
        }
        let texts = (0..pointers.len()).map(|place| {
            // SAFETY: there are as many answers as messages; a text ends in NUL.
            unsafe {
                let text = (*answers.add(place)).text;
                (!text.is_null()).then(|| CStr::from_ptr(text).to_owned())
            }
        });
        let texts = texts.collect();
        // SAFETY: they were given to this caller.
        unsafe { discard(answers, pointers.len()) };
        Ok(texts)
    }

    #[test]
    fn answers_stand_where_their_questions_did() {
        let answers = called(b"secret", &[(PAM_TEXT_INFO, c"hello"), (PAM_PROMPT_ECHO_OFF, c"Password: ")]);
        assert_eq!(answers, Ok(vec![None, Some(c"secret".to_owned())]));
    }

    #[test]
    fn one_unanswered_question_leaves_all_unanswered() {
        let answers = called(b"secret", &[(PAM_PROMPT_ECHO_OFF, c"Password: "), (ECHO_ON, c"Code: ")]);
        assert_eq!(answers, Err(PAM_CONV_ERR));
    }

    #[test]
    fn a_count_of_messages_that_pam_does_not_have_is_refused() {
        assert_eq!(called(b"secret", &[]), Err(PAM_CONV_ERR));
        assert_eq!(called(b"secret", &[(PAM_TEXT_INFO, c"x"); PAM_MAX_NUM_MSG + 1]), Err(PAM_CONV_ERR));
    }
}
