/* A PAM module for the tests. `ask`: succeeds if its own question is answered. `rename`: calls the user otherwise.
 * Declares what it uses of libpam, so that no header of it is needed. */
#include <stdlib.h>
#include <string.h>

struct pam_message { int style; const char *text; };
struct pam_response { char *text; int code; };
struct pam_conv { int (*converse)(int, const struct pam_message **, struct pam_response **, void *); void *data; };
int pam_get_item(const void *pam, int item, const void **value);
int pam_set_item(void *pam, int item, const void *value);

enum { PAM_SUCCESS = 0, PAM_AUTH_ERR = 7, PAM_USER = 2, PAM_CONV = 5, PAM_PROMPT_ECHO_OFF = 1 };

int pam_sm_authenticate(void *pam, int flags, int count, const char **words)
{
    (void)flags;
    if (count == 1 && strcmp(words[0], "rename") == 0)
        return pam_set_item(pam, PAM_USER, "hxgood2");
    const void *item = NULL;
    if (pam_get_item(pam, PAM_CONV, &item) != PAM_SUCCESS || item == NULL)
        return PAM_AUTH_ERR;
    const struct pam_conv *conversation = item;
    const struct pam_message message = { PAM_PROMPT_ECHO_OFF, "Verification code: " }, *messages = &message;
    struct pam_response *answers = NULL;
    if (conversation->converse(1, &messages, &answers, conversation->data) != PAM_SUCCESS || answers == NULL)
        return PAM_AUTH_ERR;
    free(answers->text);
    free(answers);
    return PAM_SUCCESS;
}

int pam_sm_setcred(void *pam, int flags, int count, const char **words)
{
    (void)pam, (void)flags, (void)count, (void)words;
    return PAM_SUCCESS;
}
