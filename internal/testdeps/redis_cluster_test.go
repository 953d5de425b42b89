package testdeps

import (
	"strings"
	"testing"
)

func TestRedisCluster(t *testing.T) {
	addrs, kill := RedisCluster(t)
	if len(addrs) != 3 {
		t.Fatalf("started %v", addrs)
	}
	moved := 0
	for _, addr := range addrs {
		answer, err := askRedis(addr, "SET some-key value")
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(answer, "-MOVED ") {
			moved++
		} else if !strings.HasPrefix(answer, "+OK") {
			t.Errorf("%s answered %q", addr, answer)
		}
	}
	if moved != 2 {
		t.Errorf("%d of 3 masters point to another one for a key, want 2", moved)
	}
	kill()
	if answer, err := askRedis(addrs[1], "PING"); err == nil {
		t.Errorf("a killed master answered %q", answer)
	}
}

func TestRedisSentinelFailsOver(t *testing.T) {
	s := StartRedisSentinel(t)
	mustRedis(t, s.Master.Addr, "SET kept 1")
	mustRedis(t, s.Master.Addr, "WAIT 1 5000")
	awaitRedis(t, s.Replica.Addr, "GET kept", "1")
	s.Master.Kill()
	_, port, _ := strings.Cut(s.Replica.Addr, ":")
	awaitRedis(t, s.Addrs[0], "SENTINEL GET-MASTER-ADDR-BY-NAME "+s.Name, port)
	awaitRedis(t, s.Replica.Addr, "SET written yes", "+OK")
	s.Kill()
}
