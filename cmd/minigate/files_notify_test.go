package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/minigate/minigate/internal/testdeps"
)

// notice is what users hear of a file.
type notice struct {
	Type, Event string
	File        struct {
		fileAnswer
		Owner, Channel string
	}
}

// notice returns the next publication, which has to be about a file, as "event
// of name in channel".
func (s *testSocket) notice() (text string, n notice) {
	s.t.Helper()
	for {
		f := s.read()
		if f.Push == nil || f.Push.Pub == nil {
			continue
		}
		if err := json.Unmarshal(f.Push.Pub.Data, &n); err != nil || n.Type != "minigate.file" {
			s.t.Fatalf("not about a file: %s", f.Push.Pub.Data)
		}
		return n.Event + " of " + n.File.Name + " in " + f.Push.Channel, n
	}
}

// uploadForm sends a small file as a form.
func uploadForm(t testing.TB, url string, header map[string]string, name string) (f fileAnswer) {
	t.Helper()
	form := "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"" + name + "\"\r\n\r\nhello\r\n--b--\r\n"
	header["Content-Type"] = "multipart/form-data; boundary=b"
	if status := call(t, "POST", url, header, strings.NewReader(form), &f); status != 201 {
		t.Fatalf("upload: status %d %+v", status, f)
	}
	return f
}

// TestFilesAreAnnounced has users hear of files on another node than the one
// that took them: the owner, the members of the channel, and nobody else.
func TestFilesAreAnnounced(t *testing.T) {
	sim, wechatURL := simulator(t)
	redis, s3, back := testdeps.Redis(t), testdeps.MinIO(t), backend(t)
	config := func() string {
		return strings.Replace(clusterConfig(t, wechatURL, redis, s3, back.URL), "\nfiles:\n", "\nfiles:\n  user_channel: true\n  notify: {channel: true}\n", 1)
	}
	a, b := startServe(t, config()), startServe(t, config())
	enter := func(name string, channels ...string) (loginAnswer, *testSocket) {
		me := login(t, a.Public, sim.NewCode(testAppID, name))
		socket := connect(t, b.Public, me.Token)
		for i, ch := range channels {
			socket.send(fmt.Sprintf(`{"id":%d,"subscribe":{"channel":%q}}`, i+2, ch))
			if f := socket.read(); f.Error != nil || f.Subscribe == nil {
				t.Fatalf("subscribe was answered %+v", f)
			}
		}
		return me, socket
	}
	alice, alices := enter("alice", "room:lobby")
	_, bobs := enter("bob", "room:lobby")
	carol, carols := enter("carol", "room:other")

	shared := uploadForm(t, a.Public+"/files?channel=room:lobby", bearer(alice.Token), "a.txt")
	got := map[string]bool{}
	for range 2 { // of two channels, in any order
		text, _ := alices.notice()
		got[text] = true
	}
	if !got["file_ready of a.txt in #"+alice.User.OpenID] || !got["file_shared of a.txt in room:lobby"] {
		t.Errorf("the owner heard %v", got)
	}
	text, n := bobs.notice()
	if text != "file_shared of a.txt in room:lobby" || n.File.fileAnswer != shared || n.File.Owner != alice.User.OpenID || n.File.Channel != "room:lobby" {
		t.Errorf("a member heard %s: %+v", text, n)
	}

	private := uploadForm(t, a.Public+"/files", bearer(alice.Token), "b.txt")
	if text, _ := alices.notice(); text != "file_ready of b.txt in #"+alice.User.OpenID {
		t.Errorf("the owner heard %s", text)
	}
	status, raw := filesAPI(t, b, testAPIKey, "/access", fmt.Sprintf(`{"file":%q,"channel":"room:lobby"}`, private.ID))
	if status != 200 {
		t.Fatalf("access: status %d %s", status, raw)
	}
	if text, _ := bobs.notice(); text != "file_shared of b.txt in room:lobby" {
		t.Errorf("a member heard %s", text)
	}
	call(t, "POST", a.Ops+"/api/push", map[string]string{"X-API-Key": testAPIKey}, `{"users":["`+carol.User.OpenID+`"],"data":"the first thing"}`, nil)
	if got := carols.publication(); got != `"the first thing"` {
		t.Errorf("somebody else heard %s", got)
	}
}

// TestFileNoticesAreRecovered has a user hear of a file that came while they
// were away, from the history of the personal channel. Channels are told of
// nothing by default.
func TestFileNoticesAreRecovered(t *testing.T) {
	sim, wechatURL := simulator(t)
	p := startServe(t, baseConfig(t, wechatURL)+devChannels)
	me := login(t, p.Public, sim.NewCode(testAppID, "alice"))
	personal := "#" + me.User.OpenID
	type sub struct {
		Epoch        string
		Offset       uint64
		Publications []struct{ Data notice }
	}
	open := func(subs string) (answer sub) {
		t.Helper()
		s := dial(t, p.Public)
		s.send(`{"id":1,"connect":{"token":"` + me.Token + `","subs":` + subs + `}}`)
		f := s.read()
		if f.Connect == nil {
			t.Fatalf("connect was answered %+v", f)
		}
		if err := json.Unmarshal(f.Connect.Subs[personal], &answer); err != nil {
			t.Fatal(err)
		}
		_ = s.conn.CloseNow()
		return answer
	}
	before := open(`{}`)
	key := map[string]string{"X-API-Key": testAPIKey}
	uploadForm(t, p.Ops+"/api/files/upload?user="+me.User.OpenID+"&appid="+testAppID+"&channel=room:lobby", key, "a.txt")
	var after []struct{ Data notice }
	eventually(t, "the notice is in the history", func() bool {
		after = open(fmt.Sprintf(`{%q:{"recover":true,"epoch":%q,"offset":%d}}`, personal, before.Epoch, before.Offset)).Publications
		return len(after) > 0
	})
	if n := after[0].Data; len(after) != 1 || n.Event != "file_ready" || n.File.Name != "a.txt" {
		t.Errorf("recovered %+v", after)
	}
	var history struct{ Result struct{ Publications []any } }
	call(t, "POST", p.Ops+"/api/history", key, `{"channel":"room:lobby","limit":10}`, &history)
	if len(history.Result.Publications) != 0 {
		t.Errorf("the channel was told %v", history.Result.Publications)
	}
}

// TestFileNoticesAreCounted has a node whose users have no personal channels,
// which is nothing lost, and a channel that cannot be.
func TestFileNoticesAreCounted(t *testing.T) {
	_, wechatURL := simulator(t)
	config := strings.Replace(baseConfig(t, wechatURL), "client:\n", "client:\n  subscribe_to_user_personal_channel: {enabled: false}\n", 1)
	p := startServe(t, config+devChannels+"files: {notify: {channel: true}}\n")
	key := map[string]string{"X-API-Key": testAPIKey}
	counted := func(given, lost int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d given, %d lost", given, lost), func() bool {
			_, text := callRaw(t, "GET", p.Ops+"/metrics", key, nil)
			return strings.Contains(string(text), fmt.Sprintf("minigate_file_notices_total{result=\"given\"} %d\n", given)) &&
				strings.Contains(string(text), fmt.Sprintf("minigate_file_notices_total{result=\"lost\"} %d\n", lost))
		})
	}
	f := uploadForm(t, p.Ops+"/api/files/upload?user=alice&appid="+testAppID+"&channel=room:1", key, "a.txt")
	counted(1, 0)
	filesAPI(t, p, testAPIKey, "/access", fmt.Sprintf(`{"file":%q,"channel":"unknown:1"}`, f.ID))
	counted(1, 1)
}
