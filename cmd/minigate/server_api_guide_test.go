package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// examples are the programs of docs/server-api.md: the file that each goes
// into, what stands before it there, and what runs it.
var examples = map[string]struct {
	file, before string
	run          []string
}{
	"js":     {"push.mjs", "", []string{"node"}},
	"go":     {"push.go", "", []string{"go", "run"}},
	"java":   {"Push.java", "", []string{"java"}},
	"php":    {"push.php", "<?php\n", []string{"php"}},
	"python": {"push.py", "", []string{"python3"}},
}

// checkedJavaPush is for the Java example what checkedJava is for that of
// docs/webhooks.md.
const checkedJavaPush = "2681626b15a102b7d3e17ea3f39c432cd89b3e60771e3d13500cba7d44830659"

// TestDocumentedPrograms runs the programs that docs/server-api.md offers, the
// same in both languages: each sends what it says it sends.
func TestDocumentedPrograms(t *testing.T) {
	_, wechatURL := simulator(t)
	p := startServe(t, baseConfig(t, wechatURL))
	english, chinese := programs(t, "server-api.md"), programs(t, "server-api.zh-CN.md")
	for language, e := range examples {
		t.Run(language, func(t *testing.T) {
			code := english[language]
			if code == "" || chinese[language] != code {
				t.Fatal("there is none, or another one in Chinese")
			}
			sum := sha256.Sum256([]byte(code))
			if language == "java" && hex.EncodeToString(sum[:]) == checkedJavaPush {
				return
			}
			code = strings.NewReplacer("http://127.0.0.1:9000", p.Ops, "oAlice", "o"+language).Replace(code)
			file := filepath.Join(t.TempDir(), e.file)
			if err := os.WriteFile(file, []byte(e.before+code), 0o600); err != nil {
				t.Fatal(err)
			}
			for key, works := range map[string]bool{testAPIKey: true, "no-such-key-of-this-node": false} {
				cmd := exec.Command(e.run[0], append(slices.Clone(e.run[1:]), file)...)
				cmd.Env = append(os.Environ(), "MINIGATE_KEY="+key)
				out, err := cmd.CombinedOutput()
				if (err == nil) != works || works && !strings.Contains(strings.ReplaceAll(string(out), " ", ""), `"stored":true`) {
					t.Errorf("works should be %v: %v, %s", works, err, out)
				}
			}
			var history struct {
				Result struct {
					Publications []struct{ Data json.RawMessage }
				}
			}
			call(t, "POST", p.Ops+"/api/history", withKey, fmt.Sprintf(`{"channel":"#o%s","limit":10}`, language), &history)
			if h := history.Result.Publications; len(h) != 1 || string(h[0].Data) != `{"text":"your tea is ready"}` && string(h[0].Data) != `{"text": "your tea is ready"}` {
				t.Errorf("sent %s", h)
			}
			if language == "java" && !t.Failed() {
				t.Errorf("the example has changed, and works: checkedJavaPush is now %x", sum)
			}
		})
	}
}

// programs returns the blocks of code of a page that are in a language of
// examples, of which there is one each.
func programs(t *testing.T, page string) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/" + page)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, m := range codeBlock.FindAllStringSubmatch(string(text), -1) {
		if _, wanted := examples[m[1]]; wanted {
			found[m[1]] += m[2]
		}
	}
	return found
}

// TestDocumentedFileCalls makes the calls that docs/files.md shows, in both
// languages, for a file that there is.
func TestDocumentedFileCalls(t *testing.T) {
	sim, wechatURL := simulator(t)
	p := startServe(t, baseConfig(t, wechatURL))
	me := login(t, p.Public, sim.NewCode(testAppID, "alice"))
	for _, page := range []string{"files.md", "files.zh-CN.md"} {
		file := upload(t, p.Public, me.Token, "hello.txt", strings.NewReader("hello"))
		text, err := os.ReadFile("../../docs/" + page)
		if err != nil {
			t.Fatal(err)
		}
		calls := regexp.MustCompile(`(?m)^api (files[a-z/]*) '(.*)'$`).FindAllStringSubmatch(string(text), -1)
		if len(calls) != 5 {
			t.Errorf("%s has %d calls", page, len(calls))
		}
		for _, c := range calls {
			body := strings.NewReplacer(`"ID"`, `"`+file.ID+`"`, "OPENID", me.User.OpenID).Replace(c[2])
			status, raw := callRaw(t, "POST", p.Ops+"/api/"+c[1], withKey, body)
			if status != 200 || !strings.HasSuffix(c[1], "delete") && !strings.Contains(string(raw), file.ID) {
				t.Errorf("%s: %s: %d %s", page, c[0], status, raw)
			}
		}
	}
}
