package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minigate/minigate/internal/settings"
	"github.com/minigate/minigate/internal/webhook"
)

// The code that docs/webhooks.md offers, run as it stands there.

var codeBlock = regexp.MustCompile("(?sm)^```([a-z]+)\n(.*?)^```$")

// snippets returns the blocks of code of a page by language.
func snippets(t *testing.T, page string) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/" + page)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, m := range codeBlock.FindAllStringSubmatch(string(text), -1) {
		if found[m[1]] != "" {
			t.Errorf("%s has two blocks of %s", page, m[1])
		}
		found[m[1]] = m[2]
	}
	return found
}

// signedCase is a call as a receiver sees it; fields are without tabs and line
// breaks.
type signedCase struct {
	name, time, keyID, signature, body string
	good                               bool
}

func signedCases() []signedCase {
	keys := []webhook.Key{{ID: "2026-a", Secret: settings.Secret("first-signing-secret")}, {ID: "2026-b", Secret: settings.Secret("second-signing-secret")}}
	sign := func(name string, good bool, key webhook.Key, at time.Time, change func(*signedCase)) signedCase {
		h, body := http.Header{}, `{"event":"login","name":"小明 \u0000 / \\"}`
		webhook.Sign(h, []byte(body), key, at)
		c := signedCase{name, h.Get(webhook.HeaderTimestamp), h.Get(webhook.HeaderKeyID), h.Get(webhook.HeaderSignature), body, good}
		if change != nil {
			change(&c)
		}
		return c
	}
	now, margin := time.Now(), 2*time.Minute // of a test that may be slow
	a, b := keys[0], keys[1]
	return []signedCase{
		sign("good", true, a, now, nil),
		sign("the other key", true, b, now, nil),
		sign("some minutes old", true, a, now.Add(margin-webhook.Window), nil),
		sign("a list", true, a, now, func(c *signedCase) { c.signature = "v2=abc, " + c.signature }),
		sign("upper case", true, a, now, func(c *signedCase) { c.signature = "v1=" + strings.ToUpper(c.signature[3:]) }),
		sign("too old", false, a, now.Add(-webhook.Window-margin), nil),
		sign("from ahead", false, a, now.Add(webhook.Window+margin), nil),
		sign("changed", false, a, now, func(c *signedCase) { c.body += " " }),
		sign("another time", false, a, now, func(c *signedCase) { c.time = fmt.Sprint(now.Unix() + 1) }),
		sign("no time", false, a, now, func(c *signedCase) { c.time = "" }),
		sign("the name of the other key", false, a, now, func(c *signedCase) { c.keyID = "2026-b" }),
		sign("an unknown key", false, webhook.Key{ID: "x", Secret: a.Secret}, now, nil),
		sign("no key", false, a, now, func(c *signedCase) { c.keyID = "" }),
		sign("no signature", false, a, now, func(c *signedCase) { c.signature = "" }),
		sign("another version", false, a, now, func(c *signedCase) { c.signature = "v2" + c.signature[2:] }),
		sign("without its version", false, a, now, func(c *signedCase) { c.signature = c.signature[3:] }),
		sign("cut", false, a, now, func(c *signedCase) { c.signature = c.signature[:40] }),
		sign("one digit off", false, a, now, func(c *signedCase) {
			last := "0"
			if strings.HasSuffix(c.signature, last) {
				last = "1"
			}
			c.signature = c.signature[:len(c.signature)-1] + last
		}),
		sign("too long", false, a, now, func(c *signedCase) { c.signature += "0" }),
	}
}

// guest is how the snippet of a language becomes a program that reads a case a
// line and says true or false to each.
type guest struct {
	file         string
	before, rest string
	run          []string
}

var guests = map[string]guest{
	"js": {"check.mjs", "", `
import { readFileSync } from 'node:fs'
const keys = { '2026-a': 'first-signing-secret', '2026-b': 'second-signing-secret' }
for (const line of readFileSync(0, 'utf8').trimEnd().split('\n')) {
  const [time, id, signature, body] = line.split('\t')
  const headers = { 'x-minigate-timestamp': time, 'x-minigate-key-id': id, 'x-minigate-signature': signature }
  console.log(signed(headers, Buffer.from(body), keys))
}
`, []string{"node"}},
	"python": {"check.py", "", `
import sys
keys = {"2026-a": "first-signing-secret", "2026-b": "second-signing-secret"}
for line in sys.stdin.buffer.read().decode().rstrip("\n").split("\n"):
    stamp, key, signature, body = line.split("\t")
    headers = {"X-Minigate-Timestamp": stamp, "X-Minigate-Key-Id": key, "X-Minigate-Signature": signature}
    print(str(signed(headers, body.encode(), keys)).lower())
`, []string{"python3"}},
	"php": {"check.php", "<?php\n", `
$keys = ['2026-a' => 'first-signing-secret', '2026-b' => 'second-signing-secret'];
foreach (explode("\n", rtrim(stream_get_contents(STDIN), "\n")) as $line) {
    [$time, $id, $signature, $body] = explode("\t", $line);
    $headers = array_change_key_case(['X-Minigate-Timestamp' => $time, 'X-Minigate-Key-Id' => $id, 'X-Minigate-Signature' => $signature]);
    echo signed($headers, $body, $keys) ? "true\n" : "false\n";
}
`, []string{"php"}},
	"go": {"check.go", `package main

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

`, `
func main() {
	keys := map[string]string{"2026-a": "first-signing-secret", "2026-b": "second-signing-secret"}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		f := strings.Split(lines.Text(), "\t")
		h := http.Header{}
		h.Set("X-Minigate-Timestamp", f[0])
		h.Set("X-Minigate-Key-Id", f[1])
		h.Set("X-Minigate-Signature", f[2])
		fmt.Println(Signed(h, []byte(f[3]), keys, time.Now()))
	}
}
`, []string{"go", "run"}},
	"java": {"Check.java", "", `
class Check {
    public static void main(String[] args) throws Exception {
        Map<String, String> keys = Map.of("2026-a", "first-signing-secret", "2026-b", "second-signing-secret");
        String in = new String(System.in.readAllBytes(), StandardCharsets.UTF_8);
        for (String line : in.split("\n")) {
            String[] f = line.split("\t", -1);
            Map<String, String> h = Map.of("X-Minigate-Timestamp", f[0], "X-Minigate-Key-Id", f[1], "X-Minigate-Signature", f[2]);
            System.out.println(Minigate.signed(h::get, f[3].getBytes(StandardCharsets.UTF_8), keys, Instant.now()));
        }
    }
}
`, []string{"java"}},
}

// checkedJava is the SHA-256 of the Java snippet that was last run. A JDK is
// too much to ask of everybody who runs the tests: only who changes the
// snippet needs one, and is told what to write here.
const checkedJava = "414d79139d90c062d9ed90c98f56249c5c765250d404ddc5ca8c995c94353825"

func TestWebhookSnippets(t *testing.T) {
	english := snippets(t, "webhooks.md")
	for language, g := range guests {
		t.Run(language, func(t *testing.T) {
			code := english[language]
			if code == "" {
				t.Fatal("docs/webhooks.md has no such snippet")
			}
			sum := sha256.Sum256([]byte(code))
			if language == "java" && hex.EncodeToString(sum[:]) == checkedJava {
				return
			}
			runSnippet(t, g, code)
			if language == "java" && !t.Failed() {
				t.Errorf("the snippet has changed, and works: checkedJava is now %x", sum)
			}
		})
	}
}

// program makes one of code.
func (g guest) program(code string) string {
	if g.file != "Check.java" {
		return g.before + code + g.rest
	}
	// Its main class has to be the first.
	imports := strings.LastIndex(code, "import ")
	end := imports + strings.Index(code[imports:], "\n") + 1
	return code[:end] + g.rest + code[end:]
}

func runSnippet(t *testing.T, g guest, code string) {
	t.Helper()
	cases := signedCases()
	var in strings.Builder
	for _, c := range cases {
		in.WriteString(strings.Join([]string{c.time, c.keyID, c.signature, c.body}, "\t") + "\n")
	}
	file := filepath.Join(t.TempDir(), g.file)
	if err := os.WriteFile(file, []byte(g.program(code)), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(g.run[0], append(slices.Clone(g.run[1:]), file)...)
	cmd.Stdin = strings.NewReader(in.String())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	said := strings.Fields(string(out))
	if len(said) != len(cases) {
		t.Fatalf("it said %s", out)
	}
	for i, c := range cases {
		if said[i] != fmt.Sprint(c.good) {
			t.Errorf("%s: it said %s", c.name, said[i])
		}
	}
}

// TestWebhookGuideIsTheSame compares the code of the two languages, and the
// example with what signs.
func TestWebhookGuideIsTheSame(t *testing.T) {
	english, chinese := snippets(t, "webhooks.md"), snippets(t, "webhooks.zh-CN.md")
	for language, code := range english {
		if chinese[language] != code {
			t.Errorf("the %s of docs/webhooks.zh-CN.md is another", language)
		}
	}
	if len(english) != len(chinese) || len(english) != len(guests)+2 { // and a shell and SQL
		t.Errorf("%d blocks in English, %d in Chinese", len(english), len(chinese))
	}
	h := http.Header{}
	webhook.Sign(h, []byte(`{"a":1}`), webhook.Key{ID: "a", Secret: "first-signing-secret"}, time.Unix(1700000000, 0))
	if !strings.Contains(english["sh"], strings.TrimPrefix(h.Get(webhook.HeaderSignature), "v1=")) {
		t.Error("the signature made with openssl is another")
	}
}
