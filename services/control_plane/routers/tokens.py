"""Tokens: make, list, revoke."""

from fastapi import APIRouter, status

from services.client.schemas import TokenId, TokenPage, TokenRecord, TokenSecret, TokenSubmission
from services.control_plane.dependencies import Admin
from services.storage.tokens import create_token, list_tokens, revoke_token

router = APIRouter(prefix="/tokens", tags=["tokens"])


@router.post("", status_code=status.HTTP_201_CREATED)
def create(submission: TokenSubmission, admin: Admin) -> TokenSecret:
    """A new token of the project; the answer alone holds its secret."""
    return create_token(admin.session, submission, admin.admission)


@router.get("")
def list_(admin: Admin) -> TokenPage:
    """The project's tokens, without their secrets."""
    return TokenPage(items=list_tokens(admin.session, admin.admission.project))


@router.delete("/{token_id}")
def revoke(token_id: TokenId, admin: Admin) -> TokenRecord:
    """Makes a token good for nothing, at once."""
    return revoke_token(admin.session, token_id, admin.admission)
