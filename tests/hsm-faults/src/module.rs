//! The module: SoftHSM's function list, with a few functions that may fail before they hand on.
#![expect(
    unsafe_code,
    reason = "a PKCS#11 module is C: it is called with pointers, and calls with them"
)]
#![expect(non_snake_case, reason = "the functions have the names that PKCS#11 gives them")]

use std::{
    collections::HashMap,
    process, ptr, slice,
    sync::{LazyLock, Mutex, OnceLock, PoisonError},
    thread,
    time::Duration,
};

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_BYTE, CK_FUNCTION_LIST, CK_MECHANISM, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_SLOT_ID,
    CK_TOKEN_INFO, CK_ULONG, CK_USER_TYPE, CK_UTF8CHAR, CKA_ID, CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_LOCKED,
    CKR_GENERAL_ERROR, CKR_OK,
};

use crate::{
    BEHIND,
    control::{Fault, fault, note},
};

/// Function lists are tables that never change once they are made.
struct Lists {
    behind: CK_FUNCTION_LIST,
    ours: CK_FUNCTION_LIST,
}

static LISTS: OnceLock<Lists> = OnceLock::new();
/// The key that each session is signing with: its `CKA_ID`.
static SIGNING: LazyLock<Mutex<HashMap<CK_SESSION_HANDLE, Vec<u8>>>> = LazyLock::new(Mutex::default);

/// The one function that a module exports.
///
/// # Safety
/// As PKCS#11 has it: `list` points to a place for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    let lists = match LISTS.get() {
        Some(lists) => lists,
        // SAFETY: SoftHSM's library may be loaded at any time.
        None => match unsafe { load() } {
            Some(lists) => LISTS.get_or_init(|| lists),
            None => return CKR_GENERAL_ERROR,
        },
    };
    // SAFETY: the caller gives a place for the pointer, and nobody writes through it.
    unsafe { *list = ptr::from_ref(&lists.ours).cast_mut() };
    CKR_OK
}

unsafe fn load() -> Option<Lists> {
    // SAFETY: what the library does when it is loaded is SoftHSM's affair.
    let library = unsafe { libloading::Library::new(BEHIND) }.ok()?;
    let mut list = ptr::null_mut();
    {
        // SAFETY: the function has this type in every module.
        let get =
            unsafe { library.get::<unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV>(b"C_GetFunctionList\0") };
        // SAFETY: as above.
        if unsafe { get.ok()?(&raw mut list) } != CKR_OK {
            return None;
        }
    }
    // SAFETY: the module has set the pointer to its list.
    let behind = unsafe { *list };
    // It stays for as long as the process.
    std::mem::forget(library);
    let ours = CK_FUNCTION_LIST {
        C_GetFunctionList: Some(C_GetFunctionList),
        C_GetTokenInfo: Some(C_GetTokenInfo),
        C_Login: Some(C_Login),
        C_FindObjectsInit: Some(C_FindObjectsInit),
        C_SignInit: Some(C_SignInit),
        C_Sign: Some(C_Sign),
        ..behind
    };
    Some(Lists { behind, ours })
}

fn behind() -> &'static CK_FUNCTION_LIST {
    match LISTS.get() {
        Some(lists) => &lists.behind,
        // Nobody can call any of these functions before the list was made.
        None => process::abort(),
    }
}

/// What comes of a call that goes wrong, if it is known before the call.
fn suffer(session: CK_SESSION_HANDLE, fault: Fault) -> Option<CK_RV> {
    match fault {
        Fault::Hang => loop {
            thread::park();
        },
        Fault::Crash => process::abort(),
        Fault::Slow(milliseconds) => thread::sleep(Duration::from_millis(milliseconds)),
        Fault::Return(value) => return Some(value),
        Fault::Logout => {
            if let Some(logout) = behind().C_Logout {
                // SAFETY: the session is the caller's.
                unsafe { logout(session) };
            }
        }
        Fault::Wrong | Fault::Locked | Fault::FinalTry => {}
    }
    None
}

unsafe extern "C" fn C_GetTokenInfo(slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO) -> CK_RV {
    let Some(get) = behind().C_GetTokenInfo else {
        return CKR_GENERAL_ERROR;
    };
    let fault = fault("info", &[], |_| true);
    if let Some(value) = fault.and_then(|fault| suffer(0, fault)) {
        return value;
    }
    // SAFETY: the arguments are the caller's.
    let result = unsafe { get(slot, info) };
    let flag = match fault {
        Some(Fault::Locked) => CKF_USER_PIN_LOCKED,
        Some(Fault::FinalTry) => CKF_USER_PIN_FINAL_TRY,
        _ => 0,
    };
    // SAFETY: the caller has given a place for the answer.
    if let Some(info) = unsafe { info.as_mut() } {
        info.flags |= flag;
    }
    result
}

unsafe extern "C" fn C_Login(
    session: CK_SESSION_HANDLE,
    user: CK_USER_TYPE,
    pin: *mut CK_UTF8CHAR,
    length: CK_ULONG,
) -> CK_RV {
    note("login");
    if let Some(value) = fault("login", &[], |_| true).and_then(|fault| suffer(session, fault)) {
        return value;
    }
    match behind().C_Login {
        // SAFETY: the arguments are the caller's.
        Some(login) => unsafe { login(session, user, pin, length) },
        None => CKR_GENERAL_ERROR,
    }
}

unsafe extern "C" fn C_FindObjectsInit(
    session: CK_SESSION_HANDLE,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
) -> CK_RV {
    if let Some(value) = fault("find", &[], |_| true).and_then(|fault| suffer(session, fault)) {
        return value;
    }
    match behind().C_FindObjectsInit {
        // SAFETY: the arguments are the caller's.
        Some(find) => unsafe { find(session, template, count) },
        None => CKR_GENERAL_ERROR,
    }
}

unsafe extern "C" fn C_SignInit(
    session: CK_SESSION_HANDLE,
    mechanism: *mut CK_MECHANISM,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    let id = id(session, key);
    let early = |fault| matches!(fault, Fault::Return(_) | Fault::Logout);
    if let Some(value) = fault("sign", &id, early).and_then(|fault| suffer(session, fault)) {
        return value;
    }
    SIGNING
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(session, id);
    match behind().C_SignInit {
        // SAFETY: the arguments are the caller's.
        Some(init) => unsafe { init(session, mechanism, key) },
        None => CKR_GENERAL_ERROR,
    }
}

unsafe extern "C" fn C_Sign(
    session: CK_SESSION_HANDLE,
    data: *mut CK_BYTE,
    length: CK_ULONG,
    signature: *mut CK_BYTE,
    signature_length: *mut CK_ULONG,
) -> CK_RV {
    let Some(sign) = behind().C_Sign else {
        return CKR_GENERAL_ERROR;
    };
    if signature.is_null() {
        // Only the length is asked for.
        // SAFETY: the arguments are the caller's.
        return unsafe { sign(session, data, length, signature, signature_length) };
    }
    note("sign");
    let signing = SIGNING.lock().unwrap_or_else(PoisonError::into_inner).remove(&session);
    let late = |fault| matches!(fault, Fault::Hang | Fault::Crash | Fault::Wrong | Fault::Slow(_));
    let fault = fault("sign", &signing.unwrap_or_default(), late);
    if let Some(value) = fault.and_then(|fault| suffer(session, fault)) {
        return value;
    }
    // SAFETY: the arguments are the caller's.
    let result = unsafe { sign(session, data, length, signature, signature_length) };
    if result == CKR_OK && fault == Some(Fault::Wrong) {
        // SAFETY: this many bytes were written there.
        let length = usize::try_from(unsafe { *signature_length }).unwrap_or(0);
        // SAFETY: as above.
        if let Some(last) = unsafe { slice::from_raw_parts_mut(signature, length) }.last_mut() {
            *last ^= 1;
        }
    }
    result
}

/// The `CKA_ID` of an object; nothing if it cannot be read.
fn id(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE) -> Vec<u8> {
    let mut bytes = vec![0; 256];
    let mut attribute = CK_ATTRIBUTE {
        type_: CKA_ID,
        pValue: bytes.as_mut_ptr().cast(),
        ulValueLen: 256,
    };
    let Some(get) = behind().C_GetAttributeValue else {
        return Vec::new();
    };
    // SAFETY: the attribute points to as many bytes as it says.
    if unsafe { get(session, object, &raw mut attribute, 1) } != CKR_OK {
        return Vec::new();
    }
    bytes.truncate(usize::try_from(attribute.ulValueLen).unwrap_or(0));
    bytes
}
