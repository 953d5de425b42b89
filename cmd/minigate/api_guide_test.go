package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// apiGuests are how the code of docs/server-api.md that calls the API becomes a
// program. Its arguments are the address and the key; it pushes to oAlice, says
// what came of it, and then what an unknown channel leads to.
var apiGuests = map[string]guest{
	"js": {"call.mjs", "", `
const [ops, key] = process.argv.slice(2)
const pushed = await call(ops, key, 'push', { users: ['oAlice'], data: { text: '你好' }, idempotency_key: 'k' })
console.log(pushed.result.users.oAlice.sockets)
await call(ops, key, 'publish', { channel: 'nope:a', data: 1 }).catch((e) => console.log(e.message))
`, []string{"node"}},
	"python": {"call.py", "", `

import sys
ops, key = sys.argv[1:]
print(call(ops, key, "push", {"users": ["oAlice"], "data": {"text": "你好"}, "idempotency_key": "k"})["result"]["users"]["oAlice"]["sockets"])
try:
    call(ops, key, "publish", {"channel": "nope:a", "data": 1})
except RuntimeError as e:
    print(e)
`, []string{"python3"}},
	"php": {"call.php", "<?php\n", `
[, $ops, $key] = $argv;
echo call($ops, $key, 'push', ['users' => ['oAlice'], 'data' => ['text' => '你好'], 'idempotency_key' => 'k'])['result']['users']['oAlice']['sockets'], "\n";
try {
    call($ops, $key, 'publish', ['channel' => 'nope:a', 'data' => 1]);
} catch (RuntimeException $e) {
    echo $e->getMessage(), "\n";
}
`, []string{"php", "-d", "display_errors=stderr"}},
	"go": {"call.go", `package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

`, `
func main() {
	var pushed struct {
		Result struct{ Users map[string]struct{ Sockets int } }
	}
	body := map[string]any{"users": []string{"oAlice"}, "data": map[string]any{"text": "你好"}, "idempotency_key": "k"}
	if err := call(context.Background(), os.Args[1], os.Args[2], "push", body, &pushed); err != nil {
		fmt.Println(err)
	}
	fmt.Println(pushed.Result.Users["oAlice"].Sockets)
	fmt.Println(call(context.Background(), os.Args[1], os.Args[2], "publish", map[string]any{"channel": "nope:a", "data": 1}, &pushed))
}
`, []string{"go", "run"}},
	"java": {"Check.java", "", `
class Check {
    public static void main(String[] args) throws Exception {
        String pushed = Minigate.call(args[0], args[1], "push", "{\"users\":[\"oAlice\"],\"data\":{\"text\":\"你好\"},\"idempotency_key\":\"k\"}");
        System.out.println(pushed.contains("\"oAlice\":{\"sockets\":1,") ? 1 : pushed);
        try {
            Minigate.call(args[0], args[1], "publish", "{\"channel\":\"nope:a\",\"data\":1}");
        } catch (IOException e) {
            System.out.println(e.getMessage());
        }
    }
}
`, []string{"java"}},
}

// checkedAPIJava is as checkedJava, for docs/server-api.md.
const checkedAPIJava = "bba617485626cbefa4d75c061f5d33fad4918036a7b2e2b36ae5bfdaf1e7ecaf"

// TestDocumentedCallers runs the code that docs/server-api.md offers, as it
// stands there, against the real program.
func TestDocumentedCallers(t *testing.T) {
	sim, wechatURL := simulator(t)
	begin := map[string]string{"js": "// Node.js", "python": "import json", "php": "function call", "go": "var client", "java": "import java"}
	for language, g := range apiGuests {
		t.Run(language, func(t *testing.T) {
			code := documented(t, "server-api", language, begin[language])
			sum := sha256.Sum256([]byte(code))
			if language == "java" && hex.EncodeToString(sum[:]) == checkedAPIJava {
				return
			}
			p := startServe(t, baseConfig(t, wechatURL))
			me := login(t, p.Public, sim.NewCode(testAppID, "alice"))
			socket := connect(t, p.Public, me.Token)
			g.rest = strings.ReplaceAll(g.rest, "oAlice", me.User.OpenID)
			file := filepath.Join(t.TempDir(), g.file)
			if err := os.WriteFile(file, []byte(g.program(code)), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(g.run[0], append(slices.Clone(g.run[1:]), file, p.Ops, testAPIKey)...).CombinedOutput()
			want := "1\n" + `publish: 404 {"code":102,"message":"unknown channel"}` + "\n"
			if err != nil || string(out) != want {
				t.Errorf("%v: got %s, want %s", err, out, want)
			}
			var arrived struct{ Text string }
			if got := socket.publication(); json.Unmarshal([]byte(got), &arrived) != nil || arrived.Text != "你好" {
				t.Errorf("arrived %s", got)
			}
			if language == "java" && !t.Failed() {
				t.Errorf("the code has changed, and works: checkedAPIJava is now %x", sum)
			}
		})
	}
}
