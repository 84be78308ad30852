/* What peers and files say, made into sentences and commands: nothing may break out of either. */
#include <assert.h>
#include <stddef.h>

#include "explain/login.h"

enum { FIELDS = 12 };

static bool is_printable(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return false;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str rest = str_slice(data, size), s[FIELDS];
    struct login_words words;
    if (size < 2)
        return 0;
    const struct catalog_entry *entry = catalog_at(data[0] % catalog_size());
    uint32_t kvno = data[1];
    rest = str_skip(rest, 2);
    for (size_t i = 0; i < FIELDS; i++)
        str_cut(&rest, '\n', &s[i]);
    struct login_key keys[] = { { s[0], kvno, s[1] }, { s[2], 3, s[3] }, { s[4], 4, s[1] } };
    login_explain(&(struct login_facts){
        .cause = catalog_word(entry), .user = s[5], .client = s[6], .server = s[7], .has_ticket = true, .ticket_service = s[0],
        .ticket_realm = s[8], .has_ticket_kvno = true, .ticket_kvno = kvno, .ticket_enctype = s[1], .keytab = s[9],
        .keys = keys, .n_keys = 3, .services = s, .n_services = FIELDS, .minor_text = s[10], .ntlm_domain = s[2],
        .ntlm_workstation = s[3], .ntlm_target = s[4], .detail = s[11] }, &words);
    assert(is_printable(words.why) && is_printable(words.run) && !strpbrk(words.run, "`&"));
    login_explain_outbound(&(struct login_outbound_facts){
        .cause = catalog_word(entry), .domain = s[0], .peer = s[1], .announced = s[2], .offered = s[3], .principal = s[4],
        .keytab = s[5], .spn = s[6], .realm = s[7], .kdc_text = s[8], .command = s[9], .reply_code = kvno, .reply = s[10] },
        &words);
    assert(is_printable(words.why) && is_printable(words.run));
    size_t index = 0;
    while (catalog_search(s[0], &index))
        ;
    return 0;
}
