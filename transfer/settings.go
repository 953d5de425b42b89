package transfer

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/minigate/minigate/internal/settings"
)

// Settings are those of uploads and downloads.
type Settings struct {
	Store          string            `yaml:"store" default:"folder" doc:"Where the bytes of files are kept: folder (files below the data directory) or s3."`
	MaxSize        settings.Size     `yaml:"max_size" default:"200MiB" doc:"The largest file that may be uploaded; wx.downloadFile fetches at most 200 MiB. With s3 at most 78GiB."`
	AllowedTypes   []string          `yaml:"allowed_types" doc:"Media types that may be uploaded, such as image/png or image/*, compared with what the file's bytes say; empty allows all."`
	MaxConcurrent  int               `yaml:"max_concurrent" default:"64" doc:"How many uploads this node takes at the same time before it answers 503."`
	MaxPerUser     int               `yaml:"max_concurrent_per_user" default:"10" doc:"How many uploads one user may have at the same time on this node before it answers 429; a mini-program has at most ten requests open."`
	StallTimeout   time.Duration     `yaml:"stall_timeout" default:"30s" doc:"How long an upload or download may make no progress before it is ended."`
	MinRate        settings.Size     `yaml:"min_rate" default:"1KiB" doc:"How many bytes a second a client has to send, on average over the time of stall_timeout spent waiting for it; a slower upload is ended. 0 takes any."`
	MinFree        settings.Size     `yaml:"min_free" default:"256MiB" doc:"How much of the disk below the data directory files leave free, where store is folder; uploads are answered 507 before it is less. 0 fills the disk."`
	MatchTypes     bool              `yaml:"match_types" default:"false" doc:"Refuse files whose bytes contradict the extension of their name, or the type that was declared: at the beginning of an upload in parts, or in a form as the Content-Type of the file's part."`
	Limits         []Limit           `yaml:"limits" doc:"Sizes below max_size for files of some types, from some mini-programs, or for some readers. The first one that fits counts."`
	BufferBudget   settings.Size     `yaml:"buffer_budget" default:"48MiB" doc:"How much memory all uploads to s3 together may use for parts on their way, at least 8MiB, and as much again those over tus to any store; uploads wait for each other when it is used up."`
	PublicURL      string            `yaml:"public_url" doc:"What the address of a file begins with in answers, such as https://files.example.com; empty answers a path without host."`
	SweepInterval  time.Duration     `yaml:"sweep_interval" default:"10m" doc:"How often the remains of interrupted uploads and deletions are looked for."`
	PendingTTL     time.Duration     `yaml:"pending_ttl" default:"6h" doc:"How long one upload may take at all; what is unfinished for longer is removed."`
	UserQuota      settings.Size     `yaml:"user_quota" default:"0" doc:"How many bytes all files of one user may have together, those on their way included; 0 is no limit."`
	DailyQuota     settings.Size     `yaml:"daily_quota" default:"0" doc:"How many bytes one user may upload in one day (UTC); 0 is no limit. Uploads that fail do not count, files that are deleted do."`
	MaxSessions    int               `yaml:"max_sessions_per_user" default:"20" doc:"How many uploads in parts one user may have begun and not completed; 0 is no limit."`
	PartSize       settings.Size     `yaml:"part_size" default:"5MiB" doc:"How large the parts of uploads in parts are, unless a client wants others; up to 8MiB, with s3 at least 5MiB. A small one costs less to send again over a bad line; 10000 of them have to be enough for a file."`
	SessionTTL     time.Duration     `yaml:"session_ttl" default:"24h" doc:"How long an upload in parts may take, over restarts of the phone and of minigate; then it is removed. Between 1m and 720h."`
	DirectTTL      time.Duration     `yaml:"direct_ttl" default:"1h" doc:"How long the address of a direct upload is good, and how long one that comes as a form may take until it is confirmed; between 1m and 24h."`
	VerifyInterval time.Duration     `yaml:"verify_interval" default:"24h" doc:"How often one node compares all files with what is stored and counts what is on one side only; 0 never does."`
	OrphanTTL      time.Duration     `yaml:"orphan_ttl" default:"0s" doc:"How old what is stored and belongs to no file must be before that comparison deletes it; at least 24h, 0 keeps it."`
	LinkMaxTTL     time.Duration     `yaml:"link_max_ttl" default:"168h" doc:"How long a link to a file, which works without a login, may live at most; between 1m and 8760h."`
	UserLinkMaxTTL time.Duration     `yaml:"user_link_max_ttl" default:"1h" doc:"How long a link may live at most that a user makes of a file that the user may read; up to 8760h, 0 lets nobody make any."`
	UserPublic     bool              `yaml:"user_public" default:"false" doc:"Whether users may upload files that anybody who knows their address can read (?public=true)."`
	UserChannel    bool              `yaml:"user_channel" default:"false" doc:"Whether users may share what they upload with a channel that they are in (?channel=NAME)."`
	Notify         NotifySettings    `yaml:"notify" doc:"What users hear of files over their sockets."`
	TTL            TTLSettings       `yaml:"ttl" doc:"How long files are kept, counted from their upload."`
	Thumbnails     ThumbnailSettings `yaml:"thumbnails" doc:"Small versions of pictures."`
	Inspect        CheckSettings     `yaml:"check" doc:"Looking at what is in files before others can read them; also webhooks.check."`
	S3             S3Settings        `yaml:"s3" doc:"The S3 server, where store is s3."`
}

// Limit is how large some files may be.
type Limit struct {
	AppIDs  []string      `yaml:"appids" doc:"Mini-programs that it is for; empty means all."`
	Access  []string      `yaml:"access" doc:"Who may read the files that it is for: private (their owner alone), public, channel; empty means all."`
	Types   []string      `yaml:"types" doc:"Media types that it is for, such as image/*, compared with what the file's bytes say; empty means all."`
	MaxSize settings.Size `yaml:"max_size" doc:"The largest such file."`
}

// S3Settings say where the bucket is.
type S3Settings struct {
	Endpoint          string          `yaml:"endpoint" doc:"Host and optional port of the server, such as s3.eu-central-1.amazonaws.com, without https://."`
	Region            string          `yaml:"region" default:"us-east-1" doc:"The region of the bucket."`
	Bucket            string          `yaml:"bucket" doc:"The bucket that holds the files and nothing else."`
	AccessKey         string          `yaml:"access_key" doc:"The access key id."`
	SecretKey         settings.Secret `yaml:"secret_key" doc:"The secret access key."`
	Secure            bool            `yaml:"secure" default:"true" doc:"Use https."`
	CreateBucket      bool            `yaml:"create_bucket" default:"false" doc:"Create the bucket where it is missing."`
	Direct            bool            `yaml:"direct" default:"false" doc:"Let phones upload to the S3 server itself (POST /files/direct) where it can do that safely, which is tried at the start. They then need its domain among uploadFile and request 合法域名."`
	Redirect          bool            `yaml:"redirect" default:"false" doc:"Send downloads on (302) to the S3 server itself, by an address that is signed for a few minutes. Phones then need its domain among downloadFile 合法域名 as well."`
	PublicURL         string          `yaml:"public_url" doc:"Where phones reach the S3 server, such as https://s3.example.com; empty is endpoint."`
	SignContent       bool            `yaml:"sign_content" default:"true" doc:"Sign the bytes of uploads, where secure is false: nobody on the way to the server can change them, and a GB costs one more CPU-second on either side. Off for a network that is trusted; with https there is no need."`
	ConditionalWrites bool            `yaml:"conditional_writes" default:"true" doc:"Send If-None-Match with uploads so that no object can be replaced; off for servers that refuse it."`
}

// Check reports settings that cannot work.
func (s *Settings) Check(report func(path, problem string)) {
	if s.Store != "folder" && s.Store != "s3" {
		report("store", "must be folder or s3")
	}
	if s.MaxSize <= 0 {
		report("max_size", "must be more than 0")
	}
	checkTypes(s.AllowedTypes, "allowed_types", report)
	for i, l := range s.Limits {
		path := "limits[" + strconv.Itoa(i) + "]."
		checkTypes(l.Types, path+"types", report)
		for n, kind := range l.Access {
			if !slices.Contains([]string{accessPrivate, accessPublic, accessChannel}, kind) {
				report(path+"access["+strconv.Itoa(n)+"]", "must be private, public or channel")
			}
		}
		if l.MaxSize <= 0 || l.MaxSize > s.MaxSize {
			report(path+"max_size", "must be more than 0, and at most files.max_size")
		}
	}
	for path, n := range map[string]int{"max_concurrent": s.MaxConcurrent, "max_concurrent_per_user": s.MaxPerUser} {
		if n <= 0 {
			report(path, "must be more than 0")
		}
	}
	for path, d := range map[string]time.Duration{"stall_timeout": s.StallTimeout, "sweep_interval": s.SweepInterval, "pending_ttl": s.PendingTTL} {
		if d <= 0 {
			report(path, "must be more than 0")
		}
	}
	for path, d := range map[string]time.Duration{"ttl.private": s.TTL.Private, "ttl.public": s.TTL.Public, "ttl.channel": s.TTL.Channel} {
		if d < 0 {
			report(path, "must not be negative")
		}
	}
	for path, n := range map[string]int64{"user_quota": int64(s.UserQuota), "daily_quota": int64(s.DailyQuota), "max_sessions_per_user": int64(s.MaxSessions), "min_rate": int64(s.MinRate), "min_free": int64(s.MinFree)} {
		if n < 0 {
			report(path, "must not be negative")
		}
	}
	if s.PartSize < 64<<10 || s.PartSize > partSize {
		report("part_size", "must be between 64KiB and 8MiB")
	}
	if s.SessionTTL < time.Minute || s.SessionTTL > 720*time.Hour {
		report("session_ttl", "must be between 1m and 720h")
	}
	if s.DirectTTL < time.Minute || s.DirectTTL > 24*time.Hour {
		report("direct_ttl", "must be between 1m and 24h")
	}
	if s.LinkMaxTTL < time.Minute || s.LinkMaxTTL > 8760*time.Hour {
		report("link_max_ttl", "must be between 1m and 8760h")
	}
	if s.VerifyInterval != 0 && s.VerifyInterval < time.Minute {
		report("verify_interval", "must be 0 or at least 1m")
	}
	if s.OrphanTTL != 0 && s.OrphanTTL < 24*time.Hour {
		report("orphan_ttl", "must be 0 or at least 24h")
	}
	if s.UserLinkMaxTTL != 0 && (s.UserLinkMaxTTL < time.Minute || s.UserLinkMaxTTL > 8760*time.Hour) {
		report("user_link_max_ttl", "must be 0 or between 1m and 8760h")
	}
	if u, err := url.Parse(s.PublicURL); s.PublicURL != "" && (err != nil || u.Host == "" || u.RawQuery != "" || u.Scheme != "https" && u.Scheme != "http") {
		report("public_url", "must be an http or https address without a query")
	}
	s.checkPublic(report)
	if s.Store == "s3" {
		s.checkS3(report)
	}
}

func checkTypes(types []string, path string, report func(path, problem string)) {
	for i, t := range types {
		if major, minor, ok := strings.Cut(t, "/"); !ok || major == "" || minor == "" || strings.ContainsAny(t, "; ") {
			report(path+"["+strconv.Itoa(i)+"]", `must look like "image/png" or "image/*"`)
		}
	}
}

func (s *Settings) checkS3(report func(path, problem string)) {
	for path, v := range map[string]string{
		"endpoint": s.S3.Endpoint, "region": s.S3.Region, "bucket": s.S3.Bucket,
		"access_key": s.S3.AccessKey, "secret_key": s.S3.SecretKey.Value(),
	} {
		if v == "" {
			report("s3."+path, "is needed where store is s3")
		}
	}
	if strings.Contains(s.S3.Endpoint, "/") {
		report("s3.endpoint", "must be host or host:port only; secure chooses https")
	}
	if u, err := url.Parse(s.S3.PublicURL); s.S3.PublicURL != "" && (err != nil || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.Scheme != "https" && u.Scheme != "http") {
		report("s3.public_url", "must be http:// or https:// and a host only")
	}
	if s.PartSize < minPart {
		report("part_size", "must be at least 5MiB with s3")
	}
	if s.BufferBudget < partSize {
		report("buffer_budget", "must be at least 8MiB")
	}
	if s.MaxSize > maxParts*partSize {
		report("max_size", "must be at most 78GiB with s3")
	}
}
