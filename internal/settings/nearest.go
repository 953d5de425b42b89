package settings

import "strings"

// didYouMean names the candidate nearest to word; one that goes on where word
// ends ("redis_address" for "redis") is nearer than any other.
func didYouMean(word string, candidates []string) string {
	const longest = 100 // no key is; keeps the work small
	if len(word) > longest {
		word = word[:longest]
	}
	best, least := "", -1
	for _, c := range candidates {
		n := distance(strings.ToLower(word), strings.ToLower(c))
		if strings.HasPrefix(c, word+"_") {
			n = 0
		}
		if least < 0 || n < least {
			best, least = c, n
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// distance is the Levenshtein distance in bytes: how many bytes must be put
// in, taken out or changed to turn a into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1) // distances of a's beginning to b's beginnings
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
