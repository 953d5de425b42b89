package main

import (
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/settings"
	"github.com/minigate/minigate/internal/webhook"
)

// TestDocumentedSignatureCheck runs the code that docs/auth.md offers against
// a real signature and a forged one.
func TestDocumentedSignatureCheck(t *testing.T) {
	page, err := os.ReadFile("../../docs/auth.md")
	if err != nil {
		t.Fatal(err)
	}
	code := regexp.MustCompile("(?s)```js\n(const \\{ createHmac.*?)```").FindSubmatch(page)
	if code == nil {
		t.Fatal("docs/auth.md has no such code")
	}
	key := webhook.Key{ID: "k", Secret: settings.Secret("a-webhook-secret-for-tests")}
	h := http.Header{}
	body := `{"event":"login"}`
	webhook.Sign(h, []byte(body), key, time.Now())
	script := string(code[1]) + `
const [time, signature, body] = process.argv.slice(1)
const check = (b) => signed({ 'x-minigate-timestamp': time, 'x-minigate-signature': signature }, Buffer.from(b), 'a-webhook-secret-for-tests')
console.log(check(body), check(body + ' '))`
	out, err := exec.Command("node", "-e", script, h.Get(webhook.HeaderTimestamp), h.Get(webhook.HeaderSignature), body).CombinedOutput()
	if err != nil || string(out) != "true false\n" {
		t.Errorf("%v: %s", err, out)
	}
}
