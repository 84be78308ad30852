#include "directory/winbind.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wbclient.h>

#include "base/secret.h"

static const uint32_t NO_SUCH_USER = 0xc0000064; /* NT_STATUS_NO_SUCH_USER, MS-ERREF section 2.3 */

struct winbind {
    struct wbcContext *context;
};

bool winbind_is_installed(void)
{
    return access(WINBIND_PIPE_FOLDER, F_OK) == 0;
}

struct winbind *winbind_new(void)
{
    struct winbind *winbind = calloc(1, sizeof *winbind);
    if (winbind)
        winbind->context = wbcCtxCreate();
    if (winbind && !winbind->context)
        winbind_free(&winbind);
    return winbind;
}

void winbind_free(struct winbind **winbind)
{
    if (*winbind && (*winbind)->context)
        wbcCtxFree((*winbind)->context);
    free(*winbind);
    *winbind = NULL;
}

static void copy_text(const char *from, char *to, size_t bytes)
{
    size_t n = from ? strlen(from) : 0;
    n = n < bytes ? n : bytes - 1;
    if (n)
        memcpy(to, from, n);
    to[n] = 0;
}

/* Both look the same to the library; the pipe tells them apart. */
static enum winbind_result why_unavailable(struct winbind_answer *a)
{
    bool there = access(WINBIND_PIPE_FOLDER "/pipe", F_OK) == 0;
    bool may = access(WINBIND_PRIVILEGED_FOLDER, X_OK) == 0;
    snprintf(a->detail, sizeof a->detail, "%s",
             there ? "winbindd is there, and its privileged pipe is not ours to use" : "no winbindd is running");
    return there && !may ? WINBIND_NO_PERMISSION : WINBIND_DOWN;
}

static enum winbind_result take_refusal(const struct wbcAuthErrorInfo *error, struct winbind_answer *a)
{
    a->nt_status = error ? error->nt_status : 0;
    a->authoritative = !error || error->authoritative;
    snprintf(a->detail, sizeof a->detail, "%.100s (0x%08x)", error && error->nt_string ? error->nt_string : "no status",
             a->nt_status);
    return WINBIND_REFUSED;
}

/* A domain whose guest account is enabled lets everybody in as guest, with any password. */
static enum winbind_result take_user(const struct wbcAuthUserInfo *info, struct winbind_answer *a)
{
    if (info->user_flags & WBC_AUTH_USER_INFO_GUEST) {
        a->nt_status = NO_SUCH_USER;
        a->authoritative = true;
        snprintf(a->detail, sizeof a->detail, "NT_STATUS_NO_SUCH_USER (0x%08x): only as its guest", a->nt_status);
        return WINBIND_REFUSED;
    }
    copy_text(info->account_name, a->user, sizeof a->user);
    copy_text(info->domain_name, a->domain, sizeof a->domain);
    memcpy(a->session_base_key, info->user_session_key, sizeof a->session_base_key);
    a->authoritative = true;
    if (a->user[0])
        return WINBIND_RIGHT;
    copy_text("winbindd named no account", a->detail, sizeof a->detail);
    return WINBIND_FAILED;
}

static uint8_t *octets(struct str s)
{
    return (uint8_t *)(uintptr_t)s.p; /* the library only reads them */
}

enum winbind_result winbind_ask(struct winbind *winbind, const struct winbind_question *question,
                                struct winbind_answer *ret_answer)
{
    struct wbcAuthUserInfo *info = NULL;
    struct wbcAuthErrorInfo *error = NULL;
    struct wbcAuthUserParams params = {
        .account_name = question->user, .domain_name = question->domain, .workstation_name = question->workstation,
        /* Computers log in, too: the next Exchange does it by its own account. */
        .parameter_control = WBC_MSV1_0_ALLOW_SERVER_TRUST_ACCOUNT | WBC_MSV1_0_ALLOW_WORKSTATION_TRUST_ACCOUNT,
        .level = WBC_AUTH_USER_LEVEL_RESPONSE,
    };
    *ret_answer = (struct winbind_answer){ 0 };
    if (question->nt_response.n > UINT16_MAX || question->lm_response.n > UINT16_MAX)
        return WINBIND_FAILED;
    memcpy(params.password.response.challenge, question->challenge, sizeof question->challenge);
    params.password.response.nt_length = (uint32_t)question->nt_response.n;
    params.password.response.nt_data = octets(question->nt_response);
    params.password.response.lm_length = (uint32_t)question->lm_response.n;
    params.password.response.lm_data = octets(question->lm_response);
    wbcErr rc = wbcCtxAuthenticateUserEx(winbind->context, &params, &info, &error);
    enum winbind_result result = WINBIND_FAILED;
    if (WBC_ERROR_IS_OK(rc) && info)
        result = take_user(info, ret_answer);
    else if (rc == WBC_ERR_AUTH_ERROR)
        result = take_refusal(error, ret_answer);
    else if (rc == WBC_ERR_WINBIND_NOT_AVAILABLE)
        result = why_unavailable(ret_answer);
    else
        copy_text(wbcErrorString(rc), ret_answer->detail, sizeof ret_answer->detail);
    if (info)
        secret_wipe(info->user_session_key, sizeof info->user_session_key);
    wbcFreeMemory(info);
    wbcFreeMemory(error);
    return result;
}
