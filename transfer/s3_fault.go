package transfer

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/minio/minio-go/v7"

	"github.com/minigate/minigate/internal/fault"
)

// errStoreRefuses means that our credentials or the bucket's policy are wrong:
// nothing that the client did, hence never 403.
var errStoreRefuses = fault.New(fault.Upstream, "storage_refused", "The file storage refuses to work for us.")

// s3Fault translates errors of minio-go. minio.ToErrorResponse would miss
// wrapped ones.
func s3Fault(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	e, ok := errors.AsType[minio.ErrorResponse](err)
	if !ok {
		return errStoreAway.Because(err) // the network
	}
	// The whole answer is not for the log: it repeats what we signed.
	cause := fmt.Errorf("%s (HTTP %d): %s", e.Code, e.StatusCode, e.Message)
	switch e.Code {
	case minio.NoSuchKey:
		return errNoObject.Because(cause)
	case minio.NoSuchBucket:
		return errStoreAway.Because(cause)
	case minio.PreconditionFailed:
		return errObjectTaken.Because(cause)
	case minio.InvalidRange:
		return errObjectRange.Because(cause)
	case minio.EntityTooLarge:
		return errFileTooLarge.Because(cause)
	case "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull":
		return errNoSpace.Because(cause)
	case minio.AccessDenied, "SignatureDoesNotMatch", "InvalidAccessKeyId", "ExpiredToken", "RequestTimeTooSkewed":
		return errStoreRefuses.Because(cause)
	}
	switch e.StatusCode {
	case http.StatusNotFound: // HEAD has no body that could carry a code
		return errNoObject.Because(cause)
	case http.StatusPreconditionFailed:
		return errObjectTaken.Because(cause)
	case http.StatusForbidden, http.StatusUnauthorized:
		return errStoreRefuses.Because(cause)
	case http.StatusInsufficientStorage:
		return errNoSpace.Because(cause)
	case http.StatusBadRequest, http.StatusNotImplemented, http.StatusMethodNotAllowed:
		return fault.New(fault.Upstream, "storage_failed", "The file storage did not understand us.").Because(cause)
	}
	return errStoreAway.Because(cause)
}
