package transfer

import (
	"path"
	"strings"
)

// typeOfName is the media type that the extension of a name stands for, "" for
// one that bytes cannot contradict. The tables of the system would say more, and
// something else on every machine.
func typeOfName(name string) string {
	return extensions[strings.ToLower(path.Ext(name))]
}

// extensions are those whose types the sniffer knows, by the names that it has
// for them.
var extensions = map[string]string{
	".apng": "image/apng", ".avif": "image/avif", ".bmp": "image/bmp", ".gif": "image/gif",
	".heic": "image/heic", ".heif": "image/heif", ".ico": "image/x-icon",
	".jfif": "image/jpeg", ".jpe": "image/jpeg", ".jpeg": "image/jpeg", ".jpg": "image/jpeg",
	".jp2": "image/jp2", ".jxl": "image/jxl", ".png": "image/png", ".psd": "image/vnd.adobe.photoshop",
	".svg": "image/svg+xml", ".tif": "image/tiff", ".tiff": "image/tiff", ".webp": "image/webp",

	".aac": "audio/aac", ".aif": "audio/aiff", ".aiff": "audio/aiff", ".amr": "audio/amr",
	".flac": "audio/flac", ".m4a": "audio/x-m4a", ".mid": "audio/midi", ".midi": "audio/midi",
	".mp3": "audio/mpeg", ".oga": "audio/ogg", ".ogg": "application/ogg", ".opus": "audio/ogg",
	".wav": "audio/wav", ".wma": "video/x-ms-asf",

	".3g2": "video/3gpp2", ".3gp": "video/3gpp", ".asf": "video/x-ms-asf", ".avi": "video/x-msvideo",
	".flv": "video/x-flv", ".m4v": "video/x-m4v", ".mkv": "video/matroska", ".mov": "video/quicktime",
	".mp4": "video/mp4", ".mpeg": "video/mpeg", ".mpg": "video/mpeg", ".ogv": "video/ogg",
	".rmvb": "application/vnd.rn-realmedia-vbr", ".webm": "video/webm", ".wmv": "video/x-ms-asf",

	".doc":  "application/msword",
	".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
	".epub": "application/epub+zip", ".mobi": "application/x-mobipocket-ebook",
	".odp": "application/vnd.oasis.opendocument.presentation",
	".ods": "application/vnd.oasis.opendocument.spreadsheet",
	".odt": "application/vnd.oasis.opendocument.text",
	".pdf": "application/pdf", ".ppt": "application/vnd.ms-powerpoint",
	".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
	".ps":   "application/postscript", ".rtf": "text/rtf", ".xls": "application/vnd.ms-excel",
	".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",

	".csv": "text/csv", ".htm": "text/html", ".html": "text/html", ".ics": "text/calendar",
	".js": "text/javascript", ".json": "application/json", ".srt": "application/x-subrip",
	".tsv": "text/tab-separated-values", ".txt": "text/plain", ".vcf": "text/vcard",
	".vtt": "text/vtt", ".xml": "text/xml",

	".7z": "application/x-7z-compressed", ".bz2": "application/x-bzip2", ".gz": "application/gzip",
	".rar": "application/vnd.rar", ".tar": "application/x-tar", ".tgz": "application/gzip",
	".xz": "application/x-xz", ".zip": "application/zip", ".zst": "application/zstd",

	".apk": "application/vnd.android.package-archive", ".exe": "application/vnd.microsoft.portable-executable",
	".jar": "application/java-archive", ".sqlite": "application/vnd.sqlite3", ".wasm": "application/wasm",
	".otf": "font/otf", ".ttf": "font/ttf", ".woff": "font/woff", ".woff2": "font/woff2",
}
