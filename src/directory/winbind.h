/* winbind: asks the local winbindd, and so the domain, whether an NTLM response is right.
 *
 * Blocks: usually some milliseconds, for a winbindd that hangs up to five minutes, and there is no way to end it: only
 * on threads that may be lost for so long. The connection is kept in the handle; one handle belongs to one thread at a
 * time. The process must be root or in the group of winbind's privileged pipe (winbindd_priv on Debian). */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

enum { WINBIND_NAME_BYTES = 256, WINBIND_KEY_BYTES = 16, WINBIND_DETAIL_BYTES = 200 };
/* The pipes, for a sandbox. */
#define WINBIND_PIPE_FOLDER "/run/samba/winbindd"
#define WINBIND_PRIVILEGED_FOLDER "/var/lib/samba/winbindd_privileged"

struct winbind;

/* There is or was a winbindd on this machine: the folder of its pipe exists. */
bool winbind_is_installed(void);

/* NULL when out of memory. Connects at the first question. */
struct winbind *winbind_new(void);
/* NULL is fine. */
void winbind_free(struct winbind **winbind);

struct winbind_question {
    const char *user, *domain, *workstation; /* as the client wrote them; "" = none */
    unsigned char challenge[8];
    struct str nt_response, lm_response;
};

enum winbind_result {
    WINBIND_RIGHT,
    WINBIND_REFUSED,       /* nt_status says why */
    WINBIND_DOWN,          /* there is no winbindd */
    WINBIND_NO_PERMISSION, /* there is one, and we may not use its privileged pipe */
    WINBIND_FAILED,
};
struct winbind_answer {
    char user[WINBIND_NAME_BYTES], domain[WINBIND_NAME_BYTES]; /* as the domain spells them */
    unsigned char session_base_key[WINBIND_KEY_BYTES];         /* secret */
    uint32_t nt_status;
    bool authoritative;    /* false: nobody knows that domain */
    char detail[WINBIND_DETAIL_BYTES]; /* "NT_STATUS_WRONG_PASSWORD (0xc000006a)" */
};

enum winbind_result winbind_ask(struct winbind *winbind, const struct winbind_question *question,
                                struct winbind_answer *ret_answer);
