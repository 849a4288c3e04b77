# A member opens streams without end: memory stays bounded, and no one else notices.
. "$(dirname "$0")/../lib.sh"

siege
attack open-streams --seconds 4
unharmed 64
